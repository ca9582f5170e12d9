"""The negative."""

from __future__ import annotations

import numpy as np

from ...images import Array, Pixels, to_rgb


def invert(
    image: Array, *, resolution: int, params: tuple[float, ...] = (), mask: Pixels | None = None, rng_seed: int = 0
) -> Pixels:
    """255 minus the picture, at its own size."""
    return np.subtract(np.uint8(255), to_rgb(image))
