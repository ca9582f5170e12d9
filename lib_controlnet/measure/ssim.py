"""Structural similarity, in one scale (Wang et al. 2004) and in several (Wang et al. 2003).

The window is Gaussian, 11 pixels, sigma 1.5. SSIM is taken where it lies wholly within the picture, as in scikit-image;
several scales as in torchmetrics, which ControlNet++ measures with: their last term has borders by reflection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .score import Mask

Array = NDArray[np.float64]
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
_SIGMA = 1.5
_EDGE = WINDOW // 2
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class Similarity:
    """value: 0..1, None where the picture is smaller than the window or nothing is scored. scales: how many."""

    value: float | None
    scales: int = 1


def ssim_map(a: Array, b: Array) -> tuple[Array, Array]:
    """SSIM and its contrast term of each pixel, (h, w) or (h, w, C), of pictures in 0..1; borders by reflection."""
    one, two = _blur(a), _blur(b)
    own = _blur(a * a) - one * one, _blur(b * b) - two * two
    shared = _blur(a * b) - one * two
    contrast = (2 * shared + _C2) / (own[0] + own[1] + _C2)
    similar = (2 * one * two + _C1) / (one * one + two * two + _C1) * contrast
    return similar, contrast


def ssim(a: Array, b: Array, inside: Mask) -> Similarity:
    """Mean SSIM over what is inside, channels alike."""
    if min(a.shape[:2]) < WINDOW:
        return Similarity(None)
    return Similarity(_mean(_inner(ssim_map(a, b)[0]), _inner(inside)))


def ms_ssim(a: Array, b: Array, inside: Mask) -> Similarity:
    """SSIM over five scales; in small pictures over those in which the window fits, weighted alike."""
    count = min(len(SCALES), _scales(min(a.shape[:2])))
    weights = np.array(SCALES[:count]) * sum(SCALES) / sum(SCALES[:count] or (1.0,))
    share = inside.astype(np.float64)
    product = 1.0
    for scale, weight in enumerate(weights):
        similar, contrast = ssim_map(a, b)
        last = scale == count - 1
        mean = _mean(similar, share > 0) if last else _mean(_inner(contrast), _inner(share) > 0)
        if mean is None:
            return Similarity(None, count)
        product *= max(mean, 0.0) ** weight
        a, b, share = _halved(a), _halved(b), _halved(share)
    return Similarity(product if count else None, count)


def _scales(side: int) -> int:
    count = 0
    while side >= WINDOW:
        count, side = count + 1, side // 2
    return count


def _inner(values: Any) -> Any:
    """Where the window lies wholly within."""
    return values[_EDGE : values.shape[0] - _EDGE, _EDGE : values.shape[1] - _EDGE]


def _mean(values: Array, inside: Mask) -> float | None:
    return float(values[inside].mean()) if inside.any() else None


def _halved(a: Array) -> Array:
    """The mean of each 2x2 pixels; an odd last row or column is left out, as avg_pool2d does."""
    height, width = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
    parts = [a[y:height:2, x:width:2] for y in (0, 1) for x in (0, 1)]
    return sum(parts[1:], parts[0]) / 4


def _blur(a: Array) -> Array:
    kernel: Any = cv2.getGaussianKernel(WINDOW, _SIGMA, cv2.CV_64F)
    blurred: Any = cv2.sepFilter2D(a, cv2.CV_64F, kernel, kernel)
    return blurred
