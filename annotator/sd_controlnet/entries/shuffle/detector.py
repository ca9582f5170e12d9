"""Content shuffle (ControlNet 1.1)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...images import Array, Pixels, resize_short_side
from ...spec import DEFAULT_RESOLUTION, AnnotatorError

_GRAIN = 256
_REMAP_LIMIT = 32767
"""OpenCV's `remap` counts pixels in 16 bits."""


def shuffle(
    image: Array, *, resolution: int, params: tuple[float, ...] = (), mask: Pixels | None = None, rng_seed: int = 0
) -> Pixels:
    """Short side 512 whatever `resolution` says. The same `rng_seed` gives the same flow as NumPy's global generator
    seeded with it gives in the peers."""
    resized = resize_short_side(image, DEFAULT_RESOLUTION)
    height, width = resized.shape[:2]
    if max(height, width) > _REMAP_LIMIT:
        raise AnnotatorError(
            "the picture is too narrow to be shuffled", found=f"{width}x{height} pixels", remedy="crop it"
        )
    random = np.random.RandomState(rng_seed)
    x = _smooth_noise(random, height, width) * float(width - 1)
    y = _smooth_noise(random, height, width) * float(height - 1)
    flow = np.dstack([x, y]).astype(np.float32)
    return cv2.remap(resized, flow, None, cv2.INTER_LINEAR).astype(np.uint8, copy=False)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _smooth_noise(random: np.random.RandomState, height: int, width: int) -> NDArray[Any]:
    """(height, width) in 0..1: uniform noise of one value per 256 pixels, cubic in between, stretched to the range."""
    coarse = random.uniform(0.0, 1.0, (height // _GRAIN + 2, width // _GRAIN + 2, 1))
    grown = cv2.resize(coarse, (width + 2 * _GRAIN, height + 2 * _GRAIN), interpolation=cv2.INTER_CUBIC)
    noise = grown[_GRAIN : _GRAIN + height, _GRAIN : _GRAIN + width]
    noise = noise - noise.min()
    return noise / noise.max()
