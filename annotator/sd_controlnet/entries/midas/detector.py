"""MiDaS's relative depth as a map, near is white; or the normals of its surface."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...depth import normals, normals_to_pixels, stretched
from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...networks import to_tensor
from ...renaming import load_sized
from ...spec import Runtime, WeightFile
from .network import disparity, hybrid


class Midas:
    """`id_` chooses depth or normals."""

    def __init__(self, runtime: Runtime, id_: str, weights: WeightFile) -> None:
        self._runtime = runtime
        self._weights = weights
        self._as_normals = id_ == "normal_map"

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3). params: of normals, the part of the depth's range that is background."""
        padded, cut = resize_and_pad(image, resolution)
        depth = self._depth(padded)
        if not self._as_normals:
            return grey_to_rgb(cut(stretched(depth)))
        found = normals_to_pixels(normals(depth, params[0] if params else 0.4))
        # ControlNet 1.0 was trained on (z, y, x): OpenCV's order of channels taken for RGB
        return cut(found[:, :, ::-1])

    def _depth(self, image: Pixels) -> Array:
        network: Any = self._runtime.network("midas", lambda: load_sized(self._runtime, self._weights, hybrid))
        with torch.no_grad():
            pixels = to_tensor(image, self._runtime) / 127.5 - 1.0
            return disparity(network, pixels)[0].cpu().numpy().astype(np.float32)
