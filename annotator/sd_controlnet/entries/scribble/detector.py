"""Lines of a drawing."""

from __future__ import annotations

import cv2

from ...images import Array, Pixels, darkest, grey_to_rgb, resize_and_pad

_DARK = 126


def scribble(
    image: Array, *, resolution: int, params: tuple[float, ...] = (), mask: Pixels | None = None, rng_seed: int = 0
) -> Pixels:
    """255 where the least channel is below 127: black and coloured lines alike."""
    padded, cut = resize_and_pad(image, resolution)
    return grey_to_rgb(cut(cv2.threshold(darkest(padded), _DARK, 255, cv2.THRESH_BINARY_INV)[1]))
