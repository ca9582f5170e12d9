"""People and animals as key points: OpenPose's JSON, and the drawings on which pose models were trained.

https://github.com/CMU-Perceptual-Computing-Lab/openpose/blob/master/doc/02_output.md; drawn as in ControlNet 1.1's
annotator, on which openpose models depend pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from .images import Pixels
from .spec import AnnotatorError

# Limbs of the 18 joints (0 nose, 1 neck, right arm 2-4, left arm 5-7, right leg 8-10, left leg 11-13, eyes, ears).
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255),
    (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
"""Of limb i and of joint i, RGB."""

_FINGERS = tuple((0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1) for finger in range(5)
                 for joint in range(4))  # fmt: skip
# The limbs of AP-10K's 17 joints and their colours.
_ANIMAL_LIMBS = (
    (0, 1), (1, 2), (0, 2), (2, 3), (3, 8), (8, 9), (9, 10), (3, 5), (5, 6), (6, 7), (3, 4), (4, 14), (14, 15),
    (15, 16), (4, 11), (11, 12), (12, 13),
)  # fmt: skip
_ANIMAL_COLOURS = (
    (255, 255, 255), (100, 255, 100), (150, 255, 255), (100, 50, 255), (50, 150, 200), (0, 255, 255), (0, 150, 0),
    (0, 0, 255), (0, 0, 150), (255, 50, 255), (255, 0, 255), (255, 0, 0), (150, 0, 0), (255, 255, 100), (0, 150, 0),
    (255, 255, 0), (150, 150, 150),
)  # fmt: skip
_STICK = 4
_JOINT = 4
_FACE_DOT = 3
_EDGE = 0.01
"""Points of hands and faces this near to the left or upper border, in pixels, are those that were not found."""
MAX_PEOPLE = 200
"""In one pose; a crowd of so many is drawn in a second."""
FARTHEST = 1e6
"""Pixels from the canvas's corner at which OpenCV still draws what reaches into the canvas."""


class Point(NamedTuple):
    """In parts of the canvas (0..1), or in pixels."""

    x: float
    y: float


Points = Sequence["Point | None"]


@dataclass(frozen=True)
class Person:
    """body: 18 points, None where not seen. Hands have 21, faces up to 71; None where not looked for or not found."""

    body: Points
    left_hand: Points | None = None
    right_hand: Points | None = None
    face: Points | None = None


def to_json(people: Iterable[Person], animals: Iterable[Points], height: int, width: int) -> dict[str, Any]:
    """OpenPose's JSON object, with the peers' `animals` and canvas size."""
    return {
        "people": [
            {
                "pose_keypoints_2d": _numbers(person.body),
                "face_keypoints_2d": _numbers(person.face),
                "hand_left_keypoints_2d": _numbers(person.left_hand),
                "hand_right_keypoints_2d": _numbers(person.right_hand),
            }
            for person in people
        ],
        "animals": [_numbers(animal) for animal in animals],
        "canvas_height": height,
        "canvas_width": width,
    }


def draw_json(pose: Mapping[str, Any]) -> Pixels:
    """The drawing of a JSON object, (canvas_height, canvas_width, 3) uint8. Raises AnnotatorError for what is none."""
    try:
        height, width = int(pose["canvas_height"]), int(pose["canvas_width"])
        count = len(pose.get("people") or ()) + len(pose.get("animals") or ())
        if count > MAX_PEOPLE:
            raise AnnotatorError(
                "there are too many people in a pose", found=count, remedy=f"give at most {MAX_PEOPLE}, animals counted"
            )
        people = [
            Person(
                _points(person.get("pose_keypoints_2d")) or (),
                _points(person.get("hand_left_keypoints_2d")),
                _points(person.get("hand_right_keypoints_2d")),
                _points(person.get("face_keypoints_2d")),
            )
            for person in pose.get("people") or ()
        ]
        animals = [_points(animal) or () for animal in pose.get("animals") or ()]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise AnnotatorError(
            "this is not a pose in OpenPose's JSON",
            found=f"{type(error).__name__}: {error}"[:200],
            remedy="give people, canvas_width and canvas_height, with x, y, confidence for each key point",
        ) from error
    if not (0 < height <= 8192 and 0 < width <= 8192):
        raise AnnotatorError("the canvas of a pose must have 1 to 8192 pixels a side", found=f"{width}x{height}")
    return draw(people, animals, height, width)


def draw(people: Iterable[Person], animals: Iterable[Points], height: int, width: int) -> Pixels:
    """(height, width, 3) uint8 RGB on black. Points of people are parts of the canvas unless one lies beyond 1."""
    canvas = np.zeros((height, width, 3), np.uint8)
    for person in people:
        _draw_body(canvas, _in_pixels(person.body, canvas))
        for hand in (person.left_hand, person.right_hand):
            _draw_hand(canvas, _in_pixels(hand or (), canvas))
        for point in _shown(_in_pixels(person.face or (), canvas)):
            cv2.circle(canvas, point, _FACE_DOT, (255, 255, 255), thickness=-1)
    for animal in animals:
        for (start, end), colour in zip(_ANIMAL_LIMBS, _ANIMAL_COLOURS, strict=True):
            one, other = _at(animal, start), _at(animal, end)
            if one is not None and other is not None:
                cv2.line(canvas, (int(one.x), int(one.y)), (int(other.x), int(other.y)), colour, 5)
    return canvas


def _draw_body(canvas: Pixels, body: Points) -> None:
    for (start, end), colour in zip(LIMBS, COLOURS, strict=False):
        one, other = _at(body, start), _at(body, end)
        if one is None or other is None:
            continue
        length = math.hypot(one.x - other.x, one.y - other.y)
        angle = math.degrees(math.atan2(one.y - other.y, one.x - other.x))
        middle = (int((one.x + other.x) / 2), int((one.y + other.y) / 2))
        stick = np.asarray(cv2.ellipse2Poly(middle, (int(length / 2), _STICK), int(angle), 0, 360, 1))
        cv2.fillConvexPoly(canvas, stick, [int(part * 0.6) for part in colour])
    for point, colour in zip(body, COLOURS, strict=False):
        if point is not None:
            cv2.circle(canvas, (int(point.x), int(point.y)), _JOINT, colour, thickness=-1)


def _draw_hand(canvas: Pixels, hand: Points) -> None:
    for number, (start, end) in enumerate(_FINGERS):
        ends = _shown([_at(hand, start), _at(hand, end)])
        if len(ends) == 2:
            cv2.line(canvas, ends[0], ends[1], _rainbow(number / len(_FINGERS)), thickness=2)
    for point in _shown(hand):
        cv2.circle(canvas, point, _JOINT, (0, 0, 255), thickness=-1)


def _rainbow(hue: float) -> tuple[float, float, float]:
    """The fully saturated colour of a hue 0..1, RGB 0..255."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(hue, 1.0, 1.0)
    return red * 255, green * 255, blue * 255


def _shown(points: Points) -> list[tuple[int, int]]:
    """The points that are drawn, in whole pixels."""
    whole = [(int(point.x), int(point.y)) for point in points if point is not None]
    return [(x, y) for x, y in whole if x > _EDGE and y > _EDGE]


def _in_pixels(points: Points, canvas: Pixels) -> Points:
    """Parts of the canvas as pixels; pixels as they are. One set has one kind, as the peers' drawing takes it."""
    if any(point is not None and (abs(point.x) > 1 or abs(point.y) > 1) for point in points):
        return points
    height, width = canvas.shape[:2]
    return [None if point is None else Point(point.x * width, point.y * height) for point in points]


def _at(points: Points, index: int) -> Point | None:
    return points[index] if index < len(points) else None


def _numbers(points: Points | None) -> list[float] | None:
    """x, y, confidence of each point, 0, 0, 0 for a missing one; None for no points."""
    if not points:
        return None
    return [value for p in points for value in ((0.0, 0.0, 0.0) if p is None else (float(p.x), float(p.y), 1.0))]


def _points(numbers: Sequence[float] | None) -> list[Point | None] | None:
    if not numbers:
        return None
    if len(numbers) % 3:
        raise ValueError(f"{len(numbers)} numbers are no triples of x, y and confidence")
    values = [float(number) for number in numbers]
    wrong = next((value for value in values if not abs(value) <= FARTHEST), None)
    if wrong is not None:
        raise ValueError(f"{wrong:g} is no coordinate: they end at {FARTHEST:g}")
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    return [Point(x, y) if confidence >= 1.0 else None for x, y, confidence in triples]
