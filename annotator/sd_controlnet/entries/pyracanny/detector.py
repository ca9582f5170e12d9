"""Canny over an image pyramid (as made for the Control-LoRA canny models)."""

from __future__ import annotations

import cv2
import numpy as np

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad

_SCALES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_KEPT = np.float32(0.75)


def pyracanny(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (64.0, 128.0),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """Edges of each channel, from small to large; what is there so far counts 3/4 each time. The sum of the channels
    is stretched so that its percentiles 1 and 99 become 0 and 255."""
    padded, cut = resize_and_pad(image, resolution)
    height, width = padded.shape[:2]
    total: Array | None = None
    for scale in _SCALES:
        size = (int(width * scale), int(height * scale))
        small = cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
        edges = _edges(small, int(params[0]), int(params[1]))
        if total is None:
            total = edges
            continue
        total = cv2.resize(total, size, interpolation=cv2.INTER_LINEAR)
        total *= _KEPT
        edges *= np.float32(1) - _KEPT
        total += edges
    assert total is not None
    red, green, blue = cv2.split(total)
    return grey_to_rgb(cut(_stretched(red + green + blue)))


def _edges(image: Array, low: int, high: int) -> Array:
    """(h, w, 3) float32 of 0 and 1: edges of each channel by itself."""
    planes = [cv2.Canny(plane, low, high) for plane in cv2.split(image)]
    return cv2.merge(planes).astype(np.float32) / np.float32(255)


def _stretched(grey: Array) -> Pixels:
    """Percentiles 1 and 99 to 0 and 255, in place. Where they are equal (hardly any edge), what exceeds is white."""
    low, high = np.percentile(grey, 1), np.percentile(grey, 99)
    if high <= low:
        return np.where(grey > low, 255, 0).astype(np.uint8)
    grey -= low
    grey /= high - low
    grey *= np.float32(255)
    return grey.clip(0, 255).astype(np.uint8)
