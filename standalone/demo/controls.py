"""Control maps of a demo picture: canny, scribble and segmentation, each (128, 128, 3) RGB uint8 on black."""

from __future__ import annotations

import random
from typing import Final

import cv2
import numpy as np

from .shapes import PALETTE, SIZE, Image, Picture

TYPES: Final = ("canny", "scribble", "seg")


def control_map(kind: str, picture: Picture, rng: random.Random) -> Image:
    """The map of `kind` for `picture`; `rng` draws the hand's irregularities."""
    if kind == "canny":
        return canny(picture) if rng.random() < 0.8 else outline(picture)
    if kind == "scribble":
        return scribble(picture, rng)
    if kind == "seg":
        return segmentation(picture)
    raise ValueError(f"unknown control {kind!r}, known are {', '.join(TYPES)}")


def canny(picture: Picture) -> Image:
    """What the canny preprocessor makes of the picture at its default thresholds."""
    return _rgb(cv2.Canny(picture.image, 100, 200))


def outline(picture: Picture) -> Image:
    """The shape's outline one pixel wide, as one would draw it."""
    return _rgb(_strokes([picture.points], 1))


def segmentation(picture: Picture) -> Image:
    """The shape filled in its class colour, sharp edged."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[picture.mask > 0] = PALETTE[picture.shape]
    return image


def scribble(picture: Picture, rng: random.Random) -> Image:
    """The outline as by a marker: 2 to 6 pixels wide, wobbling, here and there interrupted or drawn twice."""
    points = _resample(picture.points, 64)
    strokes = [_wobble(points, rng)]
    if rng.random() < 0.25:
        strokes.append(_wobble(points, rng))
    if rng.random() < 0.3:
        start, gap = rng.randrange(64), rng.randrange(2, 6)
        strokes[0] = np.roll(strokes[0], -start, axis=0)[gap:]
        drawn = _strokes(strokes[:1], rng.randint(2, 6), closed=False) | _strokes(strokes[1:], rng.randint(2, 6))
        return _rgb(drawn)
    return _rgb(_strokes(strokes, rng.randint(2, 6)))


def _wobble(points: np.ndarray, rng: random.Random) -> np.ndarray:
    """Shift the points by slow waves of up to about 2 pixels around the outline."""
    turn = np.linspace(0, 2 * np.pi, len(points), endpoint=False)
    shift = np.zeros_like(points)
    for waves in (1, 2, 3, 5, 8):
        for axis in (0, 1):
            shift[:, axis] += rng.gauss(0, 0.6) * np.sin(waves * turn + rng.uniform(0, 6.28))
    return points + shift


def _resample(points: np.ndarray, count: int) -> np.ndarray:
    """`count` points evenly spaced along the closed outline."""
    closed = np.concatenate([points, points[:1]])
    way = np.concatenate([[0.0], np.linalg.norm(np.diff(closed, axis=0), axis=1).cumsum()])
    at = np.linspace(0, way[-1], count, endpoint=False)
    return np.stack([np.interp(at, way, closed[:, axis]) for axis in (0, 1)], 1)


def _strokes(lines: list[np.ndarray], width: int, closed: bool = True) -> Image:
    image = np.zeros((SIZE, SIZE), np.uint8)
    for points in lines:
        cv2.polylines(image, [np.round(points * 16).astype(np.int32)], closed, (255,), width, cv2.LINE_8, 4)
    return image


def _rgb(single: np.ndarray) -> Image:
    return np.repeat(single.astype(np.uint8)[..., None], 3, axis=2)
