"""What MediaPipe's solutions find, as control maps: face contours, OpenPose drawings, a mask of people."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad, resize_short_side
from ...skeletons import Person, Point, draw, to_json
from ...spec import AnnotatorError, Detection, Runtime

SMALLEST_FACE = 64
"""Pixels; smaller faces are left out, as when the face models' training maps were drawn."""
LEAST_VISIBILITY = 0.5
_FULL_BODY = 1  # the only accuracy whose model is in the library's wheel
_SQUARE_PICTURES = 0  # the model of square pictures; 1 is that of wide ones
_THICKNESS = 2
_HALF_PUPIL = 2
# in the order in which they are drawn over each other: the library's name of the contour, RGB
_CONTOURS = (
    ("FACEMESH_FACE_OVAL", (10, 200, 10)),
    ("FACEMESH_LEFT_EYE", (10, 200, 180)),
    ("FACEMESH_LEFT_EYEBROW", (10, 220, 180)),
    ("FACEMESH_RIGHT_EYE", (180, 200, 10)),
    ("FACEMESH_RIGHT_EYEBROW", (180, 220, 10)),
    ("FACEMESH_LIPS", (10, 180, 10)),
)
_PUPILS = ((468, (250, 200, 10)), (473, (10, 200, 250)))
# BlazePose's points (github.com/google-ai-edge/mediapipe, docs/solutions/pose.md) as OpenPose's 18; the neck lies
# between the shoulders
_BODY = (0, None, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
_SHOULDERS = (11, 12)


class _Solution:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def _run(self, module: str, name: str, image: Pixels, **options: Any) -> Any:
        """What the solution `name` finds in (H, W, 3) RGB."""
        self._runtime.stage(0.0)
        with getattr(getattr(solutions(), module), name)(**options) as solution:
            return solution.process(np.ascontiguousarray(image))


class Face(_Solution):
    """Contours of faces in fixed colours, as CrucibleAI's ControlNetMediaPipeFace learned them."""

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3); black where there is no face."""
        most, confidence = (*params, *(1.0, 0.5)[len(params) :])
        padded, cut = resize_and_pad(image, resolution)
        found = self._run(
            "face_mesh",
            "FaceMesh",
            padded,
            static_image_mode=True,
            max_num_faces=int(most),
            refine_landmarks=True,
            min_detection_confidence=confidence,
        )
        canvas = np.zeros_like(padded)
        for face in found.multi_face_landmarks or ():
            points = [Point(mark.x, mark.y) for mark in face.landmark]
            if _smaller_side(points, padded) >= SMALLEST_FACE:
                _draw_face(canvas, points)
        return cut(canvas)


class Pose(_Solution):
    """One person's body, drawn as OpenPose draws."""

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        """The drawing, (h, w, 3), and its JSON; black where there is nobody."""
        (confidence,) = params or (0.5,)
        resized = resize_short_side(image, resolution)
        found = self._run(
            "pose",
            "Pose",
            resized,
            static_image_mode=True,
            model_complexity=_FULL_BODY,
            min_detection_confidence=confidence,
        )
        marks = found.pose_landmarks
        return _detection([] if marks is None else [Person(openpose_body(marks.landmark))], resized)


class Hands(_Solution):
    """Hands drawn as OpenPose draws them; the points of both have the same order."""

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        """The drawing, (h, w, 3), and its JSON, in which each hand is a person of its own."""
        most, confidence = (*params, *(4.0, 0.5)[len(params) :])
        resized = resize_short_side(image, resolution)
        found = self._run(
            "hands",
            "Hands",
            resized,
            static_image_mode=True,
            max_num_hands=int(most),
            min_detection_confidence=confidence,
        )
        sides = [side.classification[0].label for side in found.multi_handedness or ()]
        people: list[Person] = []
        hands: Sequence[Any] = found.multi_hand_landmarks or ()
        for side, hand in zip(sides, hands, strict=True):
            points = [_within(mark) for mark in hand.landmark]
            # the library takes pictures for mirrored, as a camera shows its owner: its left hand is a right one
            people.append(Person((), right_hand=points) if side == "Left" else Person((), left_hand=points))
        return _detection(people, resized)


class PersonMask(_Solution):
    """White where people are."""

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3), 0 and 255."""
        (threshold,) = params or (0.5,)
        resized = resize_short_side(image, resolution)
        found = self._run(
            "selfie_segmentation", "SelfieSegmentation", resized, model_selection=_SQUARE_PICTURES
        ).segmentation_mask
        return grey_to_rgb((np.asarray(found) > threshold).astype(np.uint8) * np.uint8(255))


def solutions() -> Any:
    """The library's module of solutions. Raises `AnnotatorError` where it cannot be imported."""
    try:
        return importlib.import_module("mediapipe").solutions
    except (ImportError, AttributeError, TypeError) as error:  # TypeError: generated code of another protobuf
        raise AnnotatorError(
            "the Python package mediapipe cannot be imported",
            found=f"{type(error).__name__}: {error}",
            remedy="mediapipe 0.10.9 needs protobuf 3, 0.10.21 needs protobuf 4.25 or later 4.x",
        ) from error


def openpose_body(marks: Sequence[Any]) -> list[Point | None]:
    """BlazePose's 33 points as OpenPose's 18; None for those that are hidden or out of the picture."""
    left, right = (_visible(marks[shoulder]) for shoulder in _SHOULDERS)
    neck = None if left is None or right is None else Point((left.x + right.x) / 2, (left.y + right.y) / 2)
    return [neck if source is None else _visible(marks[source]) for source in _BODY]


def _visible(mark: Any) -> Point | None:
    return None if mark.visibility < LEAST_VISIBILITY else _within(mark)


def _within(mark: Any) -> Point | None:
    return Point(mark.x, mark.y) if 0 <= mark.x <= 1 and 0 <= mark.y <= 1 else None


def _detection(people: list[Person], image: Pixels) -> Detection:
    height, width = image.shape[:2]
    return Detection(draw(people, (), height, width), pose=to_json(people, (), height, width))


def _smaller_side(points: Sequence[Point], image: Pixels) -> float:
    """Of the box around a face, in pixels."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    return min((max(xs) - min(xs)) * image.shape[1], (max(ys) - min(ys)) * image.shape[0])


def _draw_face(canvas: Pixels, points: Sequence[Point]) -> None:
    height, width = canvas.shape[:2]
    mesh = solutions().face_mesh
    places = [_pixel(point, width, height) for point in points]
    for contour, colour in _CONTOURS:
        for start, end in getattr(mesh, contour):
            one, other = places[start], places[end]
            if one is not None and other is not None:
                cv2.line(canvas, one, other, colour, _THICKNESS)
    for index, colour in _PUPILS:
        place = places[index]
        if place is not None:
            x, y = place
            canvas[y - _HALF_PUPIL : y + _HALF_PUPIL, x - _HALF_PUPIL : x + _HALF_PUPIL] = colour


def _pixel(point: Point, width: int, height: int) -> tuple[int, int] | None:
    """Where a point is drawn; None outside of the picture."""
    if not (0 <= point.x <= 1 and 0 <= point.y <= 1):
        return None
    return min(math.floor(point.x * width), width - 1), min(math.floor(point.y * height), height - 1)
