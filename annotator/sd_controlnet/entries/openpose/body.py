"""From the body network's heat maps and part affinity fields to people.

Equal to controlnet_aux's `Body`, in float32 and without its work on maps that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...images import Pixels
from ...skeletons import LIMBS, Point

Maps = NDArray[np.float32]
Network = Callable[[Pixels], tuple[Maps, Maps]]
"""(h, w, 3) BGR uint8, sides multiples of 8 -> affinity fields (38, h / 8, w / 8), heat maps (19, h / 8, w / 8)."""

PARTS = 18
HEIGHT = 184
"""Of the picture that the network sees: half of the 368 pixels it was trained at."""
_STRIDE = 8
_GREY = 128
_LEAST_HEAT = 0.1
_LEAST_AFFINITY = 0.05
_SAMPLES = 10
_LEAST_PARTS = 4
_LEAST_MEAN_SCORE = 0.4
# The last two join people who were found in halves; they start nobody.
_JOINED = (*LIMBS, (2, 16), (5, 17))
_FIELDS = (
    (12, 13), (20, 21), (14, 15), (16, 17), (22, 23), (24, 25), (0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11),
    (28, 29), (30, 31), (34, 35), (32, 33), (36, 37), (18, 19), (26, 27),
)  # fmt: skip
"""The x and y field of each of _JOINED."""
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class Peak(NamedTuple):
    """A joint that may be somebody's: pixels of the picture, heat, and its place among all peaks."""

    x: int
    y: int
    heat: float
    index: int


class Link(NamedTuple):
    """Two peaks that lie on one limb."""

    start: int
    end: int
    score: float


def find_bodies(image: Pixels, network: Network) -> list[list[Point | None]]:
    """(H, W, 3) uint8 BGR to people, each 18 points in pixels, None where not seen."""
    height, width = image.shape[:2]
    small = resized(image, int(height * (HEIGHT / height)), int(width * (HEIGHT / height)))
    fields, heat = network(pad_to_stride(small, _GREY))
    size = small.shape[:2]

    def full(plane: Maps) -> Maps:
        """One map at the picture's size: enlarged by the stride, the padding cut off, resized."""
        enlarged = cv2.resize(
            plane, (plane.shape[1] * _STRIDE, plane.shape[0] * _STRIDE), interpolation=cv2.INTER_LANCZOS4
        )
        return resized(np.ascontiguousarray(enlarged[: size[0], : size[1]]), height, width).astype(np.float32)

    peaks: list[list[Peak]] = []
    for part in range(PARTS):
        peaks.append(_peaks(full(heat[part]), sum(map(len, peaks))))
    links = [
        _links(peaks[start], peaks[end], lambda pair=pair: (full(fields[pair[0]]), full(fields[pair[1]])), height)
        for (start, end), pair in zip(_JOINED, _FIELDS, strict=True)
    ]
    return _people([peak for part in peaks for peak in part], links)


def resized(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """As the peers resize for OpenPose: area when it shrinks, Lanczos when it grows."""
    shrinks = float(height + width) / float(image.shape[0] + image.shape[1]) < 1
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)


def pad_to_stride(image: NDArray[Any], value: int) -> NDArray[Any]:
    """Right and bottom filled with `value` up to multiples of the network's stride."""
    rows, columns = -image.shape[0] % _STRIDE, -image.shape[1] % _STRIDE
    return np.pad(image, ((0, rows), (0, columns), (0, 0)), constant_values=value)


def _peaks(heat: Maps, first: int) -> list[Peak]:
    """Maxima of the smoothed map among their four neighbours, with the heat of the map itself; row by row."""
    smooth = cv2.GaussianBlur(heat, (25, 25), 3.0, borderType=cv2.BORDER_REFLECT)
    rows, columns = np.nonzero((smooth == cv2.dilate(smooth, _CROSS)) & (smooth > _LEAST_HEAT))
    found = zip(rows.tolist(), columns.tolist(), strict=True)
    return [Peak(x, y, float(heat[y, x]), first + place) for place, (y, x) in enumerate(found)]


def _links(starts: list[Peak], ends: list[Peak], fields: Callable[[], tuple[Maps, Maps]], height: int) -> list[Link]:
    """The best pairs of peaks along which the affinity field points, each peak in one pair at most."""
    if not starts or not ends:
        return []
    field_x, field_y = fields()
    start = np.array([(peak.x, peak.y) for peak in starts], np.float64)[:, None]
    end = np.array([(peak.x, peak.y) for peak in ends], np.float64)[None]
    way = end - start
    length = np.maximum(np.sqrt((way**2).sum(axis=2)), 0.001)
    along = np.rint(np.linspace(np.broadcast_to(start, way.shape), np.broadcast_to(end, way.shape), _SAMPLES))
    columns, rows = along[..., 0].astype(int), along[..., 1].astype(int)
    direction = way / length[..., None]
    affinity = field_x[rows, columns] * direction[..., 0] + field_y[rows, columns] * direction[..., 1]
    score = affinity.sum(axis=0) / _SAMPLES + np.minimum(0.5 * height / length - 1, 0)
    good = ((affinity > _LEAST_AFFINITY).sum(axis=0) > 0.8 * _SAMPLES) & (score > 0)
    pairs = [(int(i), int(j)) for i, j in zip(*np.nonzero(good), strict=True)]
    chosen: list[Link] = []
    taken_starts: set[int] = set()
    taken_ends: set[int] = set()
    for i, j in sorted(pairs, key=lambda pair: score[pair], reverse=True):
        if i not in taken_starts and j not in taken_ends:
            chosen.append(Link(starts[i].index, ends[j].index, float(score[i, j])))
            taken_starts.add(i)
            taken_ends.add(j)
    return chosen


class _Body:
    """A person while the links are put together: the peak of each part, or -1."""

    def __init__(self) -> None:
        self.parts = [-1] * PARTS
        self.score = 0.0
        self.count = 0

    def add(self, part: int, peak: int, score: float) -> None:
        """One more part; a peak that was there is replaced and still counts, as in the original."""
        self.parts[part] = peak
        self.score += score
        self.count += 1


def _people(peaks: list[Peak], links: list[list[Link]]) -> list[list[Point | None]]:
    bodies: list[_Body] = []
    for number, ((start, end), found) in enumerate(zip(_JOINED, links, strict=True)):
        for link in found:
            _join(bodies, link, start, end, peaks, may_start=number < len(LIMBS))
    kept = [body for body in bodies if body.count >= _LEAST_PARTS and body.score / body.count >= _LEAST_MEAN_SCORE]
    return [[None if part < 0 else Point(peaks[part].x, peaks[part].y) for part in body.parts] for body in kept]


def _join(bodies: list[_Body], link: Link, start: int, end: int, peaks: list[Peak], may_start: bool) -> None:
    """Give a link to the body that has one of its ends, or join two that have one each, or begin a new one."""
    owners = [body for body in bodies if body.parts[start] == link.start or body.parts[end] == link.end][:2]
    gain = peaks[link.end].heat + link.score
    if not owners:
        if may_start:
            body = _Body()
            body.add(start, link.start, peaks[link.start].heat)
            body.add(end, link.end, gain)
            bodies.append(body)
        return
    first = owners[0]
    if len(owners) == 1:
        if first.parts[end] != link.end:
            first.add(end, link.end, gain)
        return
    second = owners[1]
    if any(one >= 0 and other >= 0 for one, other in zip(first.parts, second.parts, strict=True)):
        first.add(end, link.end, gain)
        return
    first.parts = [max(one, other) for one, other in zip(first.parts, second.parts, strict=True)]
    first.score += second.score + link.score
    first.count += second.count
    bodies.remove(second)
