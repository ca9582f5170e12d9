"""ZoeDepth's metres as a map, near is white."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...networks import to_tensor
from ...renaming import load_sized
from ...spec import Runtime, WeightFile
from .network import zoe

_HEIGHT, _WIDTH, _MULTIPLE = 384, 512, 32
_MARGIN = 3.0
"""The margin is this many times the root of half the side, as the network's authors have it."""


class Zoe:
    """Depth is the mean of what the network says of the picture and of its mirror image."""

    def __init__(self, runtime: Runtime, weights: WeightFile) -> None:
        self._runtime = runtime
        self._weights = weights

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
        with torch.no_grad():
            pixels = to_tensor(padded, self._runtime) / 255.0
            straight = self._metres(pixels)
            self._runtime.stage(0.5)
            mirrored = self._metres(pixels.flip(3)).flip(3)
            depth = ((straight + mirrored) / 2)[0, 0].cpu().numpy()
        return grey_to_rgb(cut(near_white(depth)))

    def _metres(self, pixels: Tensor) -> Tensor:
        """(1, 3, H, W) in 0..1 to (1, 1, H, W): seen within a mirrored margin, which takes the faults of the border."""
        network: Any = self._runtime.network("zoe", lambda: load_sized(self._runtime, self._weights, zoe))
        height, width = pixels.shape[-2:]
        above, beside = (int(np.sqrt(side / 2) * _MARGIN) for side in (height, width))
        framed = F.pad(pixels, (beside, beside, above, above), mode="reflect")
        size = network_size(*framed.shape[-2:])
        seen = F.interpolate(framed, size, mode="bilinear", align_corners=True) * 2.0 - 1.0
        depth = F.interpolate(network(seen), framed.shape[-2:], mode="bicubic", align_corners=False)
        return depth[:, :, above : above + height, beside : beside + width]


def network_size(height: int, width: int) -> tuple[int, int]:
    """MiDaS's rule "minimal": the lesser change of the two that reach 384 high or 512 wide, then multiples of 32."""
    by_height, by_width = _HEIGHT / height, _WIDTH / width
    scale = by_width if abs(1 - by_width) < abs(1 - by_height) else by_height
    rounded = (max(int(np.round(scale * side / _MULTIPLE)), 1) * _MULTIPLE for side in (height, width))
    return next(rounded), next(rounded)


def near_white(depth: Array) -> Pixels:
    """(H, W) metres to 0..255: the second percentile is white, the 85th and what is behind it black."""
    nearest, farthest = np.percentile(depth, (2, 85))
    if not farthest > nearest:
        return np.zeros(depth.shape, np.uint8)
    return ((1.0 - (depth - nearest) / (farthest - nearest)) * 255.0).clip(0, 255).astype(np.uint8)
