"""Where a person's hands and face are, and the points in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...images import Pixels
from ...skeletons import Point, Points
from .body import pad_to_stride, resized

Maps = NDArray[np.float32]
Network = Callable[[Pixels], Maps]
"""(h, w, 3) BGR uint8, sides multiples of 8 -> heat maps (n, h / 8, w / 8)."""

_LEAST_BOX = 20
_LEAST_HEAT = 0.05
_HAND_POINTS = 21
_HAND_MAP = 128
_HAND_SCALES = (184, 368, 552, 736)
_FACE_SIDE = 384
_GREY = 128


class Box(NamedTuple):
    """A square of a picture, in pixels."""

    x: int
    y: int
    side: int

    def cut(self, image: Pixels) -> Pixels:
        """What of the picture is in it."""
        return image[self.y : self.y + self.side, self.x : self.x + self.side]


def hand_box(shoulder: Point | None, elbow: Point | None, wrist: Point | None, image: Pixels) -> Box | None:
    """The hand lies beyond the wrist, a third of the forearm on; None where the arm is not seen or the box is small."""
    if shoulder is None or elbow is None or wrist is None:
        return None
    upper = math.hypot(elbow.x - shoulder.x, elbow.y - shoulder.y)
    fore = math.hypot(wrist.x - elbow.x, wrist.y - elbow.y)
    side = 1.5 * max(fore, 0.9 * upper)
    x = max(wrist.x + 0.33 * (wrist.x - elbow.x) - side / 2, 0)
    y = max(wrist.y + 0.33 * (wrist.y - elbow.y) - side / 2, 0)
    return _fitting(x, y, side, side, image)


def face_box(body: Points, image: Pixels) -> Box | None:
    """A square around the nose, three times as far as the eyes or one and a half times as far as the ears."""
    nose = body[0]
    if nose is None:
        return None
    reach = 0.0
    for place, factor in ((14, 3.0), (15, 3.0), (16, 1.5), (17, 1.5)):
        point = body[place]
        if point is not None:
            reach = max(reach, factor * max(abs(nose.x - point.x), abs(nose.y - point.y)))
    # The overflow is tested with half of the side: the peers' boxes, which old maps depend on.
    return _fitting(max(nose.x - reach, 0), max(nose.y - reach, 0), reach, 2 * reach, image)


def _fitting(x: float, y: float, tested: float, side: float, image: Pixels) -> Box | None:
    height, width = image.shape[:2]
    across = width - x if x + tested > width else side
    down = height - y if y + tested > height else side
    side = min(across, down)
    return Box(int(x), int(y), int(side)) if side >= _LEAST_BOX else None


def find_hand(image: Pixels, network: Network, stage: Callable[[], None]) -> list[tuple[int, int]]:
    """21 points in pixels of the (h, w, 3) BGR cut-out; (0, 0) where one is not found. Four sizes are averaged."""
    height, width = image.shape[:2]
    blurred = cv2.GaussianBlur(image, (0, 0), 0.8)
    total = np.zeros((_HAND_POINTS, _HAND_MAP, _HAND_MAP), np.float32)
    for side in _HAND_SCALES:
        stage()
        heat = network(pad_to_stride(resized(blurred, side, side), _GREY))
        for point in range(_HAND_POINTS):
            enlarged = cv2.resize(heat[point], None, fx=8, fy=8, interpolation=cv2.INTER_LANCZOS4)
            total[point] += resized(enlarged[:side, :side], _HAND_MAP, _HAND_MAP) / len(_HAND_SCALES)
    points: list[tuple[int, int]] = []
    for heat in total:
        x, y = _heaviest(heat)
        points.append((int(x * width / _HAND_MAP), int(y * height / _HAND_MAP)))
    return points


def _heaviest(heat: Maps) -> tuple[int, int]:
    """The hottest place of the patch that has most heat in it; (0, 0) where no patch is warm enough."""
    smooth = cv2.GaussianBlur(heat, (25, 25), 3.0, borderType=cv2.BORDER_REFLECT)
    count, patches = cv2.connectedComponents((smooth > _LEAST_HEAT).astype(np.uint8), connectivity=8)
    if count == 1:
        return 0, 0
    sums = np.bincount(patches.ravel(), weights=heat.ravel(), minlength=count)
    patch = 1 + int(np.argmax(sums[1:]))
    inside = np.where(patches == patch, heat, 0)
    y, x = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return int(x), int(y)


def find_face(image: Pixels, network: Network) -> list[tuple[int, int]]:
    """Points in pixels of the (h, w, 3) BGR cut-out; those that are not found are left out, as the peers do."""
    import torch
    from torch.nn import functional as F

    heat = torch.from_numpy(network(resized(image, _FACE_SIDE, _FACE_SIDE)))[None]
    full = F.interpolate(heat, image.shape[:2], mode="bilinear", align_corners=True)[0].numpy()
    points: list[tuple[int, int]] = []
    for plane in full:
        y, x = np.unravel_index(int(np.argmax(plane)), plane.shape)
        if plane[y, x] > _LEAST_HEAT:
            points.append((int(x), int(y)))
    return points
