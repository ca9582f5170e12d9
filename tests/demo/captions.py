"""An interrogator of the demo's world: says which of its shapes and colours a picture shows, by its outline alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np

from standalone.demo.metrics import nearest_colour
from standalone.demo.shapes import SHAPES, place, unit_outline

_SIDE = 64
_ANGLES = np.linspace(-0.35, 0.35, 15)


def caption(picture: Any) -> str:
    """ "a red heart on a gray background", of a PIL picture."""
    pixels = np.asarray(picture.convert("RGB"), np.float64)
    border = np.concatenate([pixels[:3].reshape(-1, 3), pixels[-3:].reshape(-1, 3), pixels[:, :3].reshape(-1, 3)])
    background = np.median(border, axis=0)
    far = np.linalg.norm(pixels - background, axis=2)
    shape = _largest((far > 0.5 * np.percentile(far, 98)).astype(np.uint8))
    inside = cv2.erode(shape, np.ones((5, 5), np.uint8)) > 0
    colour = nearest_colour(np.median(pixels[inside if inside.any() else shape > 0], axis=0))
    return f"a {colour} {shape_of(shape)} on a {nearest_colour(background)} background"


def shape_of(mask: np.ndarray) -> str:
    """The shape whose outline covers `mask` (h, w) best, of the same middle and area, turned a little."""
    found = _fitted(mask)
    return max(SHAPES, key=lambda shape: max(_overlap(found, template) for template in _templates(shape)))


def _largest(mask: np.ndarray) -> np.ndarray:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    return (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)


@cache
def _templates(shape: str) -> list[np.ndarray]:
    masks = []
    for angle in _ANGLES:
        mask = np.zeros((4 * _SIDE, 4 * _SIDE), np.uint8)
        points = place(unit_outline(shape), (2 * _SIDE, 2 * _SIDE), _SIDE, float(angle))
        masks.append(_fitted(cv2.fillPoly(mask, [np.round(points).astype(np.int32)], (1,))))
    return masks


def _fitted(mask: np.ndarray) -> np.ndarray:
    """`mask` about its middle, a quarter of (_SIDE, _SIDE) in area."""
    y, x = np.nonzero(mask)
    scale = _SIDE / 2 / np.sqrt(len(x))
    move = np.array([[scale, 0, _SIDE / 2 - scale * x.mean()], [0, scale, _SIDE / 2 - scale * y.mean()]])
    return cv2.warpAffine(mask.astype(np.float32), move, (_SIDE, _SIDE)) > 0.5


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())
