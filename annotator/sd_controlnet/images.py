"""Pictures as every preprocessor wants them: three channels, the short side at the resolution, padded to 64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .spec import AnnotatorError

Pixels = NDArray[np.uint8]
Array = NDArray[Any]

MAX_PIXELS = 1 << 26
"""Larger working pictures are refused: 1x5000 with a short side of 512 would be 1.3 gigapixels."""


def to_rgb(image: Array) -> Pixels:
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 as (H, W, 3) uint8, alpha over white (truncated, as the peers).

    The result may be `image` itself. Raises `AnnotatorError` for other shapes and types.
    """
    _check(image)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    if image.shape[2] == 3:
        return image
    alpha = image[:, :, 3:].astype(np.float32) / np.float32(255.0)
    over = image[:, :, :3].astype(np.float32) * alpha + np.float32(255.0) * (np.float32(1.0) - alpha)
    return over.clip(0, 255).astype(np.uint8)


def resize_short_side(image: Array, resolution: int) -> Pixels:
    """`image` as (h, w, 3) whose shorter side is `resolution`; cubic when it grows, area when it shrinks."""
    rgb = to_rgb(image)
    height, width = rgb.shape[:2]
    factor = float(resolution) / float(min(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size[0] * size[1] > MAX_PIXELS:
        raise AnnotatorError(
            f"a picture of {width}x{height} pixels is too narrow for a resolution of {resolution}",
            found=f"it would become {size[0]}x{size[1]} pixels",
            remedy="crop it, or lower the resolution",
        )
    interpolation = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(rgb), size, interpolation=interpolation).astype(np.uint8, copy=False)


def resize_and_pad(image: Array, resolution: int) -> tuple[Pixels, Callable[[Array], Pixels]]:
    """`resize_short_side`, then right and bottom edges repeated up to multiples of 64; and what cuts them off again."""
    resized = resize_short_side(image, resolution)
    height, width = resized.shape[:2]
    padded = np.pad(resized, ((0, -height % 64), (0, -width % 64), (0, 0)), mode="edge")

    def cut(result: Array) -> Pixels:
        return np.ascontiguousarray(result[:height, :width])

    return padded, cut


def darkest(image: Pixels) -> Pixels:
    """(H, W, 3) to (H, W): the least channel of each pixel. OpenCV's minimum takes a tenth of `np.min(axis=2)`."""
    first, second, third = cv2.split(image)
    return cv2.min(cv2.min(first, second), third).astype(np.uint8, copy=False)


def least_change(image: Pixels, change: Callable[[Array], Array]) -> Array:
    """(H, W, 3) uint8 to (H, W): the least over the channels of `change(channel as float32)`.

    Channel by channel, which keeps the work in the cache; a grey picture's channels are computed once.
    """
    least: Array | None = None
    previous: Array | None = None
    for plane in cv2.split(np.ascontiguousarray(image)):
        if previous is not None and np.array_equal(plane, previous):
            continue
        changed = change(plane.astype(np.float32))
        least = changed if least is None else cv2.min(least, changed, dst=least)
        previous = plane
    assert least is not None
    return least


def grey_to_rgb(image: Array) -> Pixels:
    """(H, W) uint8 as three equal channels."""
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)


def _check(image: Array) -> None:
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size:
        raise AnnotatorError(
            "a picture must have 8 bits and 1, 3 or 4 channels", found=f"shape {image.shape}, type {image.dtype}"
        )
