"""Monocular depth in more detail: the network at the size the picture bears, then patches (Miangoleh et al., 2021).

After "Boosting Monocular Depth Estimation Models to High-Resolution via Content-Adaptive Multi-Resolution Merging",
arXiv:2105.14021; sections 5 and 6, with the constants that the peers use for LeReS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ...images import Array, Pixels

_FIELD = 448
"""What the network overlooks: its receptive field."""
_SPEED = 32
_LARGEST = 1600
_BLIND = 0.2
"""The part of the picture that may be out of sight of any edge."""
_MERGED_SIDE = 1024

Estimate = Callable[[Pixels, int, int], Array]
Merge = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Patch:
    """A square of the enlarged picture, in its pixels."""

    x: int
    y: int
    side: int

    def grown(self, step: int) -> Patch:
        """As much larger on every side."""
        return Patch(self.x - step // 2, self.y - step // 2, self.side + step)

    def scaled(self, scale: float) -> tuple[slice, slice]:
        """Rows and columns of a picture `scale` times as large."""
        x, y, side = (int(np.round(value * scale)) for value in (self.x, self.y, self.side))
        return slice(y, y + side), slice(x, x + side)


def boosted(image: Pixels, estimate: Estimate, merge: Merge, stage: Callable[[float], None]) -> Array:
    """(H, W, 3) uint8 to (H, W) float depth.

    estimate: depth of a picture that the network sees in a given width and height. merge: two estimates in 0..1.
    """
    height, width = image.shape[:2]
    side, edges = bearable(image)
    whole = _stretched(_double(image, side, estimate, merge))
    if max(height, width) < side:
        return cv2.resize(whole, (width, height), interpolation=cv2.INTER_CUBIC)
    factor = max(min(1.0, 4 * edges * side / _LARGEST), 0.2)
    if height > width:
        tall, wide = 2 * side, round(2 * side * width / height)
    else:
        tall, wide = round(2 * side * height / width), 2 * side
    wide, tall = round(wide / factor), round(tall / factor)
    enlarged = cv2.resize(image, (wide, tall), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
    patches = worthwhile(enlarged, int(32 / factor))
    scale = height / tall
    size = (round(wide * scale), round(tall * scale))
    source = cv2.resize(enlarged, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
    base = cv2.resize(whole, size, interpolation=cv2.INTER_CUBIC)
    result = base.copy()
    window = _window() if patches else None
    for number, patch in enumerate(patches):
        stage(number / len(patches))
        place = patch.scaled(scale)
        if window is not None:
            _refine(result, base[place], source[place], place, window, estimate, merge)
    return cv2.resize(result, (width, height), interpolation=cv2.INTER_CUBIC)


def bearable(image: Pixels) -> tuple[int, float]:
    """The side at which the network still sees an edge nearly everywhere, and the part of the picture near edges."""
    edge = _gradient(image)
    side = min(image.shape[:2])
    edge = cv2.resize(edge, (side, side))
    least, greatest = edge.min(), edge.max()
    edge = (edge >= least + 0.4 * (greatest - least)).astype(np.float64)
    first = _FIELD // _SPEED
    found, seen = first, edge
    last = int(min(_LARGEST, 3 * max(image.shape[:2])) / _SPEED)
    for tried in range(first, max(last, first + 1), first // 2):
        seen = cv2.resize(_pooled(edge, max(side // tried, 1)), (tried, tried))
        seen = (seen >= 0.5).astype(np.float64)
        if (1 - cv2.dilate(seen, np.ones((first, first), np.uint8))).mean() > _BLIND:
            break
        found = tried
    near = cv2.dilate(seen, np.ones((first // 4, first // 4), np.uint8)).mean()
    return found * _SPEED, float(near)


def worthwhile(image: Pixels, step: int) -> list[Patch]:
    """The patches of a grid with more edges than the average, each grown while that holds; the large ones first."""
    gradient = _gradient(image)
    steep = gradient[gradient > 0]
    if not steep.size:
        return []
    gradient[gradient < steep.mean()] = 0
    average = gradient.sum() / gradient.size
    sums = cv2.integral(gradient)

    def density(patch: Patch) -> float:
        rows, columns = (patch.y, patch.y + patch.side), (patch.x, patch.x + patch.side)
        total = sums[rows[1], columns[1]] - sums[rows[0], columns[1]] - sums[rows[1], columns[0]]
        return (total + sums[rows[0], columns[0]]) / patch.side**2

    def inside(patch: Patch) -> bool:
        return min(patch.x, patch.y) >= 0 and all(
            corner + patch.side < size for corner, size in zip((patch.y, patch.x), sums.shape, strict=True)
        )

    stride = round(_FIELD * 0.75)
    found: list[Patch] = []
    for x in range(0, image.shape[1] - 2 * _FIELD, stride):
        for y in range(0, image.shape[0] - 2 * _FIELD, stride):
            patch = Patch(x, y, 2 * _FIELD)
            if density(patch) < average:
                continue
            while inside(patch.grown(step)) and density(patch.grown(step)) >= average:
                patch = patch.grown(step)
            found.append(patch)
    return sorted(found, key=lambda patch: patch.side, reverse=True)


def _refine(
    result: Array,
    base: Array,
    source: Pixels,
    place: tuple[slice, slice],
    window: Array,
    estimate: Estimate,
    merge: Merge,
) -> None:
    """Blend the patch's own depth into `result`, brought to the level and range of `base` by a straight line."""
    size = (base.shape[1], base.shape[0])
    coarse = cv2.resize(base, (_MERGED_SIDE, _MERGED_SIDE), interpolation=cv2.INTER_CUBIC)
    detail = merge(coarse, _stretched(_double(source, 2 * _FIELD, estimate, merge)))
    fitted = cv2.resize(_levelled(detail, coarse), size, interpolation=cv2.INTER_CUBIC)
    weight = cv2.resize(window, size)
    result[place] = result[place] * (1 - weight) + fitted * weight


def _levelled(detail: Array, coarse: Array) -> Array:
    """`detail` by a straight line nearest to `coarse` in least squares.

    In float32, whose tolerance for a million pixels is an eighth: where detail varies little, NumPy leaves a direction
    out, and the peers' maps show it. `full` only keeps it from warning of that.
    """
    (slope, level), *_ = np.polyfit(detail.ravel(), coarse.ravel(), deg=1, full=True)
    return slope * detail + level


def _double(image: Pixels, side: int, estimate: Estimate, merge: Merge) -> Array:
    """Structure from the network's own size, detail from `side`."""
    return merge(estimate(image, _FIELD, _FIELD), estimate(image, side, side))


def _stretched(depth: Array) -> Array:
    least, greatest = depth.min(), depth.max()
    return (depth - least) / (greatest - least if greatest > least else np.float32(1.0))


def _gradient(image: Pixels) -> Array:
    """(H, W, 3) to (H, W) float64: the sum of the sizes of both Sobel derivatives of the grey picture."""
    grey = np.dot(image.astype(np.float64), [0.2989, 0.5870, 0.1140])
    down, across = (np.abs(cv2.Sobel(grey, cv2.CV_64F, x, 1 - x, ksize=3)) for x in (0, 1))
    return down + across


def _pooled(image: Array, block: int) -> Array:
    """The greatest value of each block; what lies beyond the border is 0."""
    height, width = image.shape
    padded = np.pad(image, ((0, -height % block), (0, -width % block)))
    return padded.reshape(padded.shape[0] // block, block, padded.shape[1] // block, block).max(axis=(1, 3))


def _window(side: int = 3000) -> Array:
    """(side, side) in 0..1: 1 inside, falling off smoothly towards the border; made smaller for each patch."""
    border = int(0.15 * side)
    edge = np.zeros((side, 1), np.float32)
    edge[border:-border] = 1
    sigma = side // 16
    edge = cv2.GaussianBlur(edge, (1, 4 * sigma + 1), sigma)
    window = edge.reshape(-1, 1) * edge.reshape(1, -1)  # a square's blur is that of its sides, a thousandth of the work
    return _stretched(window)
