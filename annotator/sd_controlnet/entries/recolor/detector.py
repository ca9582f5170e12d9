"""Lightness of a picture."""

from __future__ import annotations

import cv2
import numpy as np

from ...images import Array, Pixels, grey_to_rgb, to_rgb


def recolor(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (1.0,),
    mask: Pixels | None = None,
    rng_seed: int = 0,
    luminance: bool = True,
) -> Pixels:
    """L of CIELAB (`luminance`) or V of HSV, with gamma `params[0]`, at the picture's own size.

    The peers hand RGB to OpenCV as BGR: V, the greatest channel, does not notice; L weighs red as blue and blue as red.
    The recolor models were used with these maps, so the order is kept.
    """
    rgb = np.ascontiguousarray(to_rgb(image))
    if luminance:
        light = cv2.extractChannel(cv2.cvtColor(rgb, cv2.COLOR_BGR2LAB), 0)
    else:
        red, green, blue = cv2.split(rgb)
        light = cv2.max(cv2.max(red, green), blue)
    scale = np.arange(256, dtype=np.uint8).astype(np.float32) / np.float32(255.0)
    curve = (scale ** params[0] * np.float32(255.0)).clip(0, 255).astype(np.uint8)
    return grey_to_rgb(cv2.LUT(light, curve))
