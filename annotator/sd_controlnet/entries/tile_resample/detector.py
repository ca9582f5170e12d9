"""The picture, made smaller."""

from __future__ import annotations

import cv2
import numpy as np

from ...images import Array, Pixels, to_rgb


def tile_resample(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (1.0,),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """Sides divided by `params[0]` (truncated), area-averaged; below 1.1 the picture is left as it is."""
    rgb, rate = to_rgb(image), params[0]
    if rate < 1.1:
        return np.array(rgb)
    height, width = (max(1, int(side / rate)) for side in rgb.shape[:2])
    return cv2.resize(np.ascontiguousarray(rgb), (width, height), interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )
