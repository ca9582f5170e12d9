"""Difference of Gaussians, thresholded."""

from __future__ import annotations

import cv2
import numpy as np

from ...images import Array, Pixels, grey_to_rgb, least_change, resize_and_pad


def scribble_xdog(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (32.0,),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """White (255 against 0) where a pixel is darker than its surroundings in all channels.

    d is the least difference of two blurs, of sigma 5 and 0.5. The peers double d in 8 bits, so that 128 and more wraps
    around and may fall below the threshold; maps that users own are made so, and so are ours.
    """
    padded, cut = resize_and_pad(image, resolution)
    inverse = (np.float32(255) - least_change(padded, _difference)).clip(0, 255).astype(np.uint8)
    doubled = 2 * (255 - np.arange(256)) % 256
    lines = cv2.LUT(inverse, np.where(doubled > params[0], 255, 0).astype(np.uint8))
    return grey_to_rgb(cut(lines))


def _difference(channel: Array) -> Array:
    return cv2.subtract(cv2.GaussianBlur(channel, (0, 0), 5.0), cv2.GaussianBlur(channel, (0, 0), 0.5))
