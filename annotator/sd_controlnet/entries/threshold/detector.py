"""Binarization by the darkest channel."""

from __future__ import annotations

import cv2

from ...images import Array, Pixels, darkest, grey_to_rgb, resize_and_pad


def threshold(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (127.0,),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """255 where the least channel is above the threshold."""
    padded, cut = resize_and_pad(image, resolution)
    return grey_to_rgb(cut(cv2.threshold(darkest(padded), params[0], 255, cv2.THRESH_BINARY)[1]))
