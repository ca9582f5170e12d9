"""A Gaussian blur."""

from __future__ import annotations

import cv2
import numpy as np

from ...images import Array, Pixels, resize_short_side


def blur_gaussian(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (9.0,),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """The picture at `resolution`, blurred with sigma `params[0]` pixels; borders are mirrored."""
    return cv2.GaussianBlur(resize_short_side(image, resolution), (0, 0), params[0]).astype(np.uint8, copy=False)
