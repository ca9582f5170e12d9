"""A picture made smaller, or blurred, and brought back to its size."""

from __future__ import annotations

import cv2
import numpy as np

from ...images import Array, Pixels, to_rgb
from .guided_filter import fast_guided_filter

_RADIUS = 7
_EPSILON = 0.01


def pyramid(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (3.0,),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """Sides to the nearest multiple of 64, then halved n times at once (area) and doubled n times (Gaussian pyramid).

    n is lowered where the picture has not so many halves; a result below 64 pixels becomes 64.
    """
    rgb = np.ascontiguousarray(to_rgb(image))
    height, width = (max(64, round(side / 64.0) * 64) for side in rgb.shape[:2])
    levels = min(int(params[0]), min(height, width).bit_length() - 1)
    small = cv2.resize(rgb, (width >> levels, height >> levels), interpolation=cv2.INTER_AREA)
    for _ in range(levels):
        small = cv2.pyrUp(small)
    return small.astype(np.uint8, copy=False)


def simple(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (1.0, 2.0),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """Smaller by `params[0]` (area) and back (Lanczos), then a blur of sigma `params[1]` / 2."""
    rgb = np.ascontiguousarray(to_rgb(image))
    return _blurred(_through_small(rgb, params[0], cv2.INTER_LANCZOS4), params[1])


def guided(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (1.0, 2.0),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """A blur of sigma `params[1]` / 2 and a guided filter, then smaller by `params[0]` (area) and back (cubic)."""
    blurred = _blurred(np.ascontiguousarray(to_rgb(image)), params[1])
    filtered = fast_guided_filter(blurred, _RADIUS, _EPSILON, params[0])
    return _through_small(filtered, params[0], cv2.INTER_CUBIC)


def _blurred(image: Pixels, strength: float) -> Pixels:
    """The kernel has `strength` pixels, one more where that is even: for great strengths it is cut at one sigma."""
    side = int(strength) | 1
    return cv2.GaussianBlur(image, (side, side), strength / 2).astype(np.uint8, copy=False)


def _through_small(image: Pixels, factor: float, interpolation: int) -> Pixels:
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(1, int(width / factor)), max(1, int(height / factor))), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=interpolation).astype(np.uint8, copy=False)
