"""Depth Anything's depth as a map, near is white."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from ...depth import stretched
from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...networks import normalised, to_tensor
from ...renaming import load_sized
from ...spec import Runtime, WeightFile
from .network import PATCH, network_of

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIDE = 37 * PATCH


class DepthAnything:
    """version: 1 or 2, whose networks read other layers. metric: metres, greater is farther, instead of disparity.

    exchanged: red and blue are exchanged before the network sees them.
    """

    def __init__(
        self, runtime: Runtime, weights: WeightFile, *, version: int, metric: bool = False, exchanged: bool = False
    ) -> None:
        self._runtime = runtime
        self._weights = weights
        self._version = version
        self._metric = metric
        self._exchanged = exchanged

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3)."""
        padded, cut = resize_and_pad(image, resolution)
        depth = stretched(self._depth(padded))
        return grey_to_rgb(cut(255 - depth if self._metric else depth))

    def _depth(self, image: Pixels) -> Array:
        """(H, W, 3) uint8 to (H, W) float: the network sees the picture with a short side of 518."""
        network: Any = self._runtime.network(f"depth_anything/{self._weights.name}", self._load)
        pixels = image[:, :, ::-1] if self._exchanged else image
        height, width = image.shape[:2]
        size = fitting(width, height)
        scaled = cv2.resize(pixels.astype(np.float32) / 255.0, size, interpolation=cv2.INTER_CUBIC)
        with torch.no_grad():
            seen = normalised(to_tensor(scaled, self._runtime), _MEAN, _STD)
            return F.interpolate(network(seen)[None], (height, width), mode="bilinear")[0, 0].cpu().numpy()

    def _load(self) -> torch.nn.Module:
        return load_sized(
            self._runtime,
            self._weights,
            lambda weights: network_of(weights, version=self._version, metric=self._metric),
        )


def fitting(width: int, height: int) -> tuple[int, int]:
    """The least multiples of the patch with the picture's shape, none below 518: (width, height)."""
    scale = max(_SIDE / width, _SIDE / height)

    def rounded(length: float) -> int:
        size = int(np.round(length / PATCH)) * PATCH
        return size if size >= _SIDE else int(np.ceil(length / PATCH)) * PATCH

    return rounded(scale * width), rounded(scale * height)
