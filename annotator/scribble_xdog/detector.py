"""Difference of Gaussians, thresholded."""

from __future__ import annotations

import cv2
import numpy as np

from ..images import Array, Pixels, darkest, grey_to_rgb, resize_and_pad


def scribble_xdog(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (32.0,),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """White lines (0 and 255) where the blur of sigma 5 is brighter than that of 0.5 in no channel.

    d is how much darker the wide blur is in its darkest channel. The peers double d in 8 bits, so that a difference of
    128 and more wraps around and may fall below the threshold; maps that users own are made so, and so are ours.
    """
    padded, cut = resize_and_pad(image, resolution)
    colours = padded.astype(np.float32)
    narrow = cv2.GaussianBlur(colours, (0, 0), 0.5)
    wide = cv2.GaussianBlur(colours, (0, 0), 5.0)
    inverse = (np.float32(255) - darkest(cv2.subtract(wide, narrow))).clip(0, 255).astype(np.uint8)
    doubled = 2 * (255 - np.arange(256)) % 256
    lines = cv2.LUT(inverse, np.where(doubled > params[0], 255, 0).astype(np.uint8))
    return grey_to_rgb(cut(lines))
