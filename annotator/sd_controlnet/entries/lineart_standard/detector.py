"""Lines as what is darker than its surroundings."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ...images import Array, Pixels, grey_to_rgb, least_change, resize_and_pad
from ...wide_blur import wide_blur

SIGMA = 6.0
LEAST_LINE = 8.0


def lineart_standard(
    image: Array, *, resolution: int, params: tuple[float, ...] = (), mask: Pixels | None = None, rng_seed: int = 0
) -> Pixels:
    """How much darker than its blur each pixel is in every channel, scaled so that the median line becomes 127."""
    padded, cut = resize_and_pad(image, resolution)
    return grey_to_rgb(cut(line_intensity(padded, LEAST_LINE, lambda channel: wide_blur(channel, SIGMA))))


def line_intensity(image: Pixels, least: float, blur: Callable[[Array], Array]) -> Pixels:
    """(H, W, 3) to (H, W). The median is taken over what exceeds `least`, and is 16 at least."""
    intensity = least_change(image, lambda channel: cv2.subtract(blur(channel), channel))
    lines = intensity[intensity > least]
    intensity /= max(np.float32(16.0), np.median(lines)) if lines.size else np.float32(16.0)
    intensity *= np.float32(127.0)
    return np.clip(intensity, 0, 255, out=intensity).astype(np.uint8)
