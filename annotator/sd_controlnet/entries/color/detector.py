"""A mosaic of the picture's colours."""

from __future__ import annotations

import cv2
import numpy as np

from ...images import MAX_PIXELS, Array, Pixels, to_rgb
from ...spec import AnnotatorError

_CELL = 64


def color_grid(
    image: Array, *, resolution: int, params: tuple[float, ...] = (), mask: Pixels | None = None, rng_seed: int = 0
) -> Pixels:
    """Short side at `resolution` (area, also when it grows), one cubic sample per 64 pixels, enlarged to squares."""
    rgb = np.ascontiguousarray(to_rgb(image))
    height, width = rgb.shape[:2]
    # This order of operations decides the rounding, and with it the size of users' maps.
    size = (
        (round(width / height * resolution), resolution)
        if height < width
        else (
            resolution,
            round(height / width * resolution),
        )
    )
    if size[0] * size[1] > MAX_PIXELS:
        raise AnnotatorError(f"the picture is too narrow for a resolution of {resolution}", found=f"{width}x{height}")
    resized = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    cells = (max(1, size[0] // _CELL), max(1, size[1] // _CELL))
    mosaic = cv2.resize(resized, cells, interpolation=cv2.INTER_CUBIC)
    return cv2.resize(mosaic, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)
