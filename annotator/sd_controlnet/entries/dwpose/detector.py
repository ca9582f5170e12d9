"""People and animals of a picture, as JSON and as drawings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...images import Array, Pixels, resize_and_pad
from ...onnx_networks import OnnxNetwork, load_onnx
from ...skeletons import Person, Point, Points, draw, to_json
from ...spec import Detection, Runtime, WeightFile
from .finder import ANIMALS, PERSON, find_boxes
from .points import find_points

PEOPLE_SIZE, ANIMAL_SIZE = (288, 384), (256, 256)
PEOPLE_POINTS, ANIMAL_POINTS = 133, 17
_SURE = 0.3
_SHOULDERS = (5, 6)
# OpenPose's 18 joints among COCO-WholeBody's, the neck, which it lacks, after those
_NECK = PEOPLE_POINTS
_BODY = (0, _NECK, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_FACE, _LEFT_HAND, _RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)
_EYES = (14, 15)


class _Found:
    """`finder` and `points`: the files of the two networks."""

    def __init__(self, runtime: Runtime, finder: WeightFile, points: WeightFile) -> None:
        self._runtime = runtime
        self._finder = finder
        self._points = points

    def _network(self, weight: WeightFile) -> OnnxNetwork:
        return self._runtime.network(weight.name, partial(load_onnx, self._runtime, weight))

    def _boxes(self, image: Pixels, classes: Sequence[int]) -> NDArray[Any] | None:
        self._runtime.stage(0.0)
        return find_boxes(image, self._network(self._finder), classes)

    def _in_boxes(self, image: Pixels, boxes: NDArray[Any], size: tuple[int, int], count: int) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = []
        for number, box in enumerate(boxes):
            self._runtime.stage((number + 1) / (len(boxes) + 1))
            found.append(find_points(image, box, self._network(self._points), size, count))
        return found


class WholeBodies(_Found):
    """Bodies with hands and faces."""

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        """The drawing (h, w, 3) and the JSON: pixels on the padded picture, as in the peers."""
        padded, cut = resize_and_pad(image, resolution)
        height, width = padded.shape[:2]
        boxes = self._boxes(padded, PERSON)
        if boxes is not None and not len(boxes):
            boxes = np.array([[0.0, 0.0, width, height]])  # something is there: the whole picture is tried
        people = [
            whole_body(points)
            for points in self._in_boxes(
                padded, np.zeros((0, 4)) if boxes is None else boxes, PEOPLE_SIZE, PEOPLE_POINTS
            )
        ]
        return Detection(cut(draw(people, (), height, width)), pose=to_json(people, (), height, width))


class Animals(_Found):
    """Animals of COCO's ten kinds, all points of each, however unsure."""

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        """The drawing (h, w, 3) and the JSON: pixels on the padded picture, as in the peers."""
        padded, cut = resize_and_pad(image, resolution)
        height, width = padded.shape[:2]
        boxes = self._boxes(padded, ANIMALS)
        animals: list[Points] = [
            [Point(float(x), float(y)) for x, y, _ in points]
            for points in self._in_boxes(
                padded, np.zeros((0, 4)) if boxes is None else boxes, ANIMAL_SIZE, ANIMAL_POINTS
            )
        ]
        return Detection(cut(draw((), animals, height, width)), pose=to_json((), animals, height, width))


def whole_body(found: NDArray[Any]) -> Person:
    """(133, 3) x, y, how sure, of COCO-WholeBody as a person of OpenPose."""
    shoulders = found[list(_SHOULDERS)]
    neck = np.append(shoulders[:, :2].mean(axis=0), float((shoulders[:, 2] > _SURE).all()))
    body = _sure(np.vstack([found, neck])[list(_BODY)])
    face = _group(found[_FACE])
    # OpenPose's face has two points more: the pupils
    pupils = [body[eye] for eye in _EYES]
    return Person(body, _group(found[_LEFT_HAND]), _group(found[_RIGHT_HAND]), face and [*face, *pupils])


def _group(found: NDArray[Any]) -> list[Point | None] | None:
    """None where no point is sure."""
    points = _sure(found)
    return points if any(point is not None for point in points) else None


def _sure(found: NDArray[Any]) -> list[Point | None]:
    return [Point(float(x), float(y)) if sure >= _SURE else None for x, y, sure in found]
