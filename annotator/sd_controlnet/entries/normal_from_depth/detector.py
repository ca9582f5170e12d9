"""Normals by the slopes of a depth map."""

from __future__ import annotations

import numpy as np

from ...depth import normals, normals_to_pixels
from ...images import Array, Pixels, resize_short_side


def normal_from_depth(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """The map, (h, w, 3): red is left, green is up, blue is towards the viewer, as normal_bae's.

    params: how steep a difference of one level is; the part of the depth's range that is background.
    """
    strength, background = (*params, *(1.0, 0.0)[len(params) :])[:2]
    depth = resize_short_side(image, resolution).mean(axis=2, dtype=np.float32)
    return normals_to_pixels(normals(depth * strength, background))
