"""The picture itself."""

from __future__ import annotations

import numpy as np

from ...images import Array, Pixels, to_rgb


def identity(
    image: Array, *, resolution: int, params: tuple[float, ...] = (), mask: Pixels | None = None, rng_seed: int = 0
) -> Pixels:
    """(H, W, 3), unchanged; alpha over white."""
    return np.array(to_rgb(image))
