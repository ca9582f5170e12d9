"""Where people and animals are: YOLOX around a picture (Ge et al., 2021, arXiv:2107.08430)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...images import Pixels
from ...onnx_networks import OnnxNetwork
from ...spec import AnnotatorError

Boxes = NDArray[np.float64]
"""(n, 4): left, top, right, bottom in pixels."""

SIDE = 640
PERSON = (0,)
ANIMALS = tuple(range(14, 24))
"""Of COCO's 80 classes: bird to giraffe."""
_STRIDES = (8, 16, 32)
_GREY = 114
_NUMBERS = 4 + 1 + 80  # box, whether there is anything, of which class
_SOMETHING = 0.1
_SURE = 0.3
_OVERLAP = 0.45


def find_boxes(image: Pixels, network: OnnxNetwork, classes: Sequence[int]) -> Boxes | None:
    """Boxes of things of these classes in (H, W, 3) RGB, class by class, surest first; None for an empty scene.

    Empty is a scene with nothing of any class in it: the peers tell it from one without a thing that was looked for.
    """
    shown, factor = letterbox(image)
    (found, *_) = network(shown.transpose(2, 0, 1)[None].astype(np.float32))
    if found.ndim != 3 or found.shape[2] != _NUMBERS:
        raise AnnotatorError(
            "the network that finds people is not YOLOX of COCO's 80 classes",
            found=f"it gives {tuple(found.shape)}",
            remedy="get yolox_l.onnx again",
        )
    boxes, scores = _decoded(found[0])
    if not (scores > _SOMETHING).any():
        return None
    kept = [boxes[:0]]
    for number in classes:
        sure = np.nonzero(scores[:, number] > _SURE)[0]
        order = sure[np.argsort(scores[sure, number])[::-1]]
        kept.append(_without_overlaps(boxes[order] / np.float32(factor)))
    return np.concatenate(kept).astype(np.float64)


def letterbox(image: Pixels) -> tuple[Pixels, float]:
    """The picture in the left upper corner of a grey square, and by how much it was enlarged.

    Red first, as sd-webui-controlnet shows it: the network was trained with blue first, but users' maps were made so.
    """
    height, width = image.shape[:2]
    factor = min(SIDE / height, SIDE / width)
    inner = (int(height * factor), int(width * factor))
    canvas = np.full((SIDE, SIDE, 3), _GREY, np.uint8)
    if min(inner):
        canvas[: inner[0], : inner[1]] = cv2.resize(image, inner[::-1], interpolation=cv2.INTER_LINEAR)
    return canvas, factor


def _decoded(raw: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """(8400, 85) to boxes in pixels of the square and scores (8400, 80)."""
    corners: list[NDArray[Any]] = []
    for stride in _STRIDES:
        rows, columns = np.mgrid[0 : SIDE // stride, 0 : SIDE // stride]
        corners.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, stride)], axis=1))
    grid = np.concatenate(corners).astype(np.float64)
    strides = grid[:, 2:]
    # in float32, as the peers: a bit more of a box's place moves what is cut out by a 32nd of a pixel
    centres = ((raw[:, :2] + grid[:, :2]) * strides).astype(np.float32)
    with np.errstate(over="ignore"):
        halves = (np.exp(raw[:, 2:4]) * strides).astype(np.float32) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1), raw[:, 4:5] * raw[:, 5:]


def _without_overlaps(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Those of `boxes`, surest first, that do not lie on a surer one. Sizes count both border pixels, as upstream."""
    sizes = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    left = np.arange(len(boxes))
    kept: list[int] = []
    while left.size:
        first, left = left[0], left[1:]
        kept.append(int(first))
        low, high = np.maximum(boxes[first, :2], boxes[left, :2]), np.minimum(boxes[first, 2:], boxes[left, 2:])
        common = np.maximum(0.0, high - low + 1).prod(axis=1)
        left = left[common / (sizes[first] + sizes[left] - common) <= _OVERLAP]
    return boxes[kept]
