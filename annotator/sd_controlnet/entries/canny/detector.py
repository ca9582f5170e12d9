"""Edges by OpenCV's Canny."""

from __future__ import annotations

import cv2

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad


def canny(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (100.0, 200.0),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """Values 0 and 255. Works on the colours, not on a grey picture: at each pixel the steepest channel counts."""
    padded, cut = resize_and_pad(image, resolution)
    low, high = params
    return grey_to_rgb(cut(cv2.Canny(padded, int(low), int(high))))
