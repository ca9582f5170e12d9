"""The fast guided filter (K. He, J. Sun, arXiv:1505.00996) of a colour picture guided by itself."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from ...images import Array, Pixels

_STRIP = 128
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def fast_guided_filter(image: Pixels, radius: int, epsilon: float, scale: float) -> Pixels:
    """(H, W, 3) uint8 with small details removed and strong edges kept.

    In each window a channel is a linear function of the three channels; its coefficients are found on a picture that
    is smaller by `scale` (nearest neighbour), averaged, and enlarged (linear).
    """
    if scale != 1:
        return _filter(image, radius, epsilon, scale)
    # At full size the thirty planes of a large photograph would take gigabytes: strip by strip, each with the rows
    # that two windows reach beyond it.
    result = np.empty_like(image)
    for top in range(0, image.shape[0], _STRIP):
        start = max(0, top - 2 * radius)
        filtered = _filter(image[start : top + _STRIP + 2 * radius], radius, epsilon, scale)
        result[top : top + _STRIP] = filtered[top - start :][:_STRIP]
    return result


def _filter(image: Pixels, radius: int, epsilon: float, scale: float) -> Pixels:
    height, width = image.shape[:2]
    guide = [np.float32(1.0 / 255.0) * plane.astype(np.float32) for plane in cv2.split(image)]
    size = (max(1, int(width / scale)), max(1, int(height / scale)))
    planes = [cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST) for plane in guide]
    window = 2 * int(radius / scale) + 1
    means = [_mean(plane, window) for plane in planes]
    products = {(i, j): _mean(planes[i] * planes[j], window) - means[i] * means[j] for i, j in _PAIRS}
    inverse = _inverse({(i, j): product + np.float32(epsilon * (i == j)) for (i, j), product in products.items()})
    result: list[Array] = []
    for channel in range(3):
        cross = [products[min(i, channel), max(i, channel)] for i in range(3)]
        slopes = [_sum(inverse[min(i, j), max(i, j)] * cross[j] for j in range(3)) for i in range(3)]
        offset = means[channel] - _sum(slopes[i] * means[i] for i in range(3))
        grown = [
            cv2.resize(_mean(part, window), (width, height), interpolation=cv2.INTER_LINEAR)
            for part in (*slopes, offset)
        ]
        filtered = _sum(grown[i] * guide[i] for i in range(3)) + grown[3]
        result.append((filtered * np.float32(255)).clip(0, 255).astype(np.uint8))
    return cv2.merge(result).astype(np.uint8, copy=False)


def _sum(parts: Iterable[Array]) -> Array:
    """The sum of arrays of one shape."""
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def _mean(plane: Array, window: int) -> Array:
    return cv2.blur(plane, (window, window))


def _inverse(matrix: dict[tuple[int, int], Array]) -> dict[tuple[int, int], Array]:
    """The inverse of a symmetric 3x3 matrix of arrays, by cofactors."""
    a, b, c, d, e, f = (matrix[pair] for pair in _PAIRS)
    cofactors = (d * f - e * e, e * c - b * f, b * e - d * c, a * f - c * c, c * b - a * e, a * d - b * b)
    determinant = cofactors[0] * a + cofactors[1] * b + cofactors[2] * c
    return {pair: cofactor / determinant for pair, cofactor in zip(_PAIRS, cofactors, strict=True)}
