"""People and animals of a pose as points in pixels, and how near one comes to another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UnitError

Array = NDArray[np.float64]

_NOSE, _EYE, _EAR, _SHOULDER, _ELBOW, _WRIST = 0.026, 0.025, 0.035, 0.079, 0.072, 0.062
_HIP, _KNEE, _ANKLE = 0.107, 0.087, 0.089
BODY_SIGMAS = (
    _NOSE, 0.0, _SHOULDER, _ELBOW, _WRIST, _SHOULDER, _ELBOW, _WRIST, _HIP, _KNEE, _ANKLE, _HIP, _KNEE, _ANKLE, _EYE,
    _EYE, _EAR, _EAR,
)  # fmt: skip
"""COCO's, of OpenPose's 18 joints. Its neck is none of COCO's, and counts not for OKS."""
ANIMAL_SIGMAS = (
    0.025, 0.025, 0.026, 0.035, 0.035, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107, 0.087,
    0.089,
)  # fmt: skip
"""AP-10K's."""
_HAND, _FACE = 21, 70
_PARTS = (("hand_left_keypoints_2d", _HAND), ("hand_right_keypoints_2d", _HAND), ("face_keypoints_2d", _FACE))


@dataclass(frozen=True, eq=False)
class Person:
    """points: (n, 2) in pixels; the first `len(sigmas)` count for OKS, the others are of hands and face. seen: (n,)."""

    points: Array
    seen: NDArray[np.bool_]
    sigmas: Array

    @property
    def box(self) -> tuple[float, float]:
        """Width and height of the box around the points of the body, of all where none of these is seen."""
        body = self.seen.copy()
        body[len(self.sigmas) :] = False
        points = self.points[body if body.any() else self.seen]
        width, height = points.max(0) - points.min(0)
        return float(width), float(height)

    def limited(self, seen: NDArray[np.bool_]) -> Person:
        """The same of whom only these points are looked at."""
        return Person(self.points, self.seen & seen, self.sigmas)


def people_of(pose: Mapping[str, Any], size: tuple[int, int]) -> list[Person]:
    """Everybody of OpenPose's JSON with a point to see, in pixels of a canvas of `size` (width, height).

    Points are parts of the canvas unless one lies beyond 1, as the drawing takes them. Raises UnitError.
    """
    try:
        canvas = float(pose["canvas_width"]), float(pose["canvas_height"])
        sets = [
            ([person.get("pose_keypoints_2d"), *(person.get(name) for name, _ in _PARTS)], BODY_SIGMAS)
            for person in cast("Sequence[Mapping[str, Any]]", pose.get("people") or ())
        ]
        sets += [([animal], ANIMAL_SIGMAS) for animal in cast("Sequence[Any]", pose.get("animals") or ())]
        people = [_person(parts, np.array(sigmas), canvas, size) for parts, sigmas in sets]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnitError(
            "this is not a pose in OpenPose's JSON", found=error,
            remedy="give people, canvas_width and canvas_height, with x, y, confidence for each key point",
        ) from error  # fmt: skip
    return [person for person in people if person.seen.any()]


def moved(
    pose: Mapping[str, Any], old: tuple[int, int], new: tuple[int, int], scale: tuple[float, float]
) -> dict[str, Any]:
    """A pose on a map of `old` (width, height), which was scaled and then cut or padded about its middle to `new`."""
    canvas = np.array((float(pose["canvas_width"]), float(pose["canvas_height"])))
    factor = np.array(old) / canvas * np.array(scale)
    offset = (np.array(new) - np.array(old) * np.array(scale)) / 2

    def points(numbers: Any) -> Any:
        flat = [float(number) for number in numbers or ()]
        if not flat or len(flat) % 3:
            return numbers
        table = np.array(flat).reshape(-1, 3)
        seen = table[:, 2] > 0
        if not (np.abs(table[seen, :2]) > 1).any():
            table[:, :2] *= canvas
        table[:, :2] = np.where(seen[:, None], table[:, :2] * factor + offset, 0)
        return table.ravel().tolist()

    people = [{name: points(numbers) for name, numbers in person.items()} for person in pose.get("people") or ()]
    animals = [points(numbers) for numbers in pose.get("animals") or ()]
    return {"people": people, "animals": animals, "canvas_width": new[0], "canvas_height": new[1]}


def oks(found: Person, wanted: Person) -> float | None:
    """Object keypoint similarity (COCO): mean of exp(-d^2 / 2 s^2 k^2), k = 2 sigma, s^2 the area of the wanted box.

    None where the wanted one shows no joint that counts. A joint that was not found is 0.
    """
    count = len(wanted.sigmas)
    asked = wanted.seen[:count] & (wanted.sigmas > 0)
    if not asked.any():
        return None
    if len(found.sigmas) != count:
        return 0.0
    width, height = wanted.box
    area = max(width * height, 1.0)
    squared = np.square(found.points[:count] - wanted.points[:count]).sum(1)
    spread = 2 * area * np.square(2 * np.where(wanted.sigmas > 0, wanted.sigmas, 1))
    near = np.where(found.seen[:count], np.exp(-squared / spread), 0)
    return float(near[asked].mean())


def met(found: Person | None, wanted: Person, share: float) -> NDArray[np.bool_]:
    """(n,): which points of `wanted` were found within `share` of the longer side of its box."""
    if found is None or len(found.points) != len(wanted.points):
        return np.zeros(len(wanted.points), bool)
    distance = np.linalg.norm(found.points - wanted.points, axis=1)
    return wanted.seen & found.seen & (distance <= share * max(*wanted.box, 1.0))


def matched(found: Sequence[Person], wanted: Sequence[Person], share: float) -> list[Person | None]:
    """For each of `wanted` who of `found` stands for it; the nearest pair first, as COCO does."""
    order = sorted(
        ((_nearness(one, other, share), i, j) for i, other in enumerate(wanted) for j, one in enumerate(found)),
        key=lambda each: (-each[0], each[1], each[2]),
    )
    places: dict[int, int] = {}
    for nearness, i, j in order:
        if nearness > 0 and i not in places and j not in places.values():
            places[i] = j
    return [found[places[i]] if i in places else None for i in range(len(wanted))]


def _nearness(found: Person, wanted: Person, share: float) -> float:
    """OKS, where there is none the share of points met."""
    near = oks(found, wanted)
    return float(met(found, wanted, share)[wanted.seen].mean()) if near is None else near


def _person(parts: Sequence[Any], sigmas: Array, canvas: tuple[float, float], size: tuple[int, int]) -> Person:
    counts = [len(sigmas), *(count for _, count in _PARTS)]
    read = [_points(part, count, canvas) for part, count in zip(parts, counts, strict=False)]
    points = np.concatenate([part[0] for part in read]) * (np.array(size) / np.array(canvas))
    return Person(points, np.concatenate([part[1] for part in read]), sigmas)


def _points(numbers: Any, count: int, canvas: tuple[float, float]) -> tuple[Array, NDArray[np.bool_]]:
    """(count, 2) in the canvas's pixels and which of them are seen."""
    flat = [float(number) for number in numbers or ()]
    if len(flat) % 3 or not all(math.isfinite(number) for number in flat):
        raise ValueError(f"{len(flat)} numbers are no triples of x, y and confidence")
    table = np.zeros((count, 3))
    given = np.array(flat).reshape(-1, 3)[:count]
    table[: len(given)] = given
    seen = table[:, 2] > 0
    points = table[:, :2]
    if not (np.abs(points[seen]) > 1).any():
        points = points * np.array(canvas)
    return points, seen
