"""The demo model's world: one flat shape on a flat background, with prompt, mask and control maps.

Five shapes times twelve colours on another of the twelve, drawn with anti-aliasing at 128x128. The pictures are
made, not collected, so every one of them comes with its exact mask and colours and the quality figures need no judge.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

SIZE: Final = 128
SUPERSAMPLING: Final = 4

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "pink": (255, 192, 203),
    "cyan": (0, 255, 255),
    "brown": (165, 42, 42),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
}
SHAPES: Final = ("circle", "square", "triangle", "star", "heart")
# Class colours of the segmentation control, saturated and far apart, so that a painted map is read without a legend.
PALETTE: Final[dict[str, tuple[int, int, int]]] = {
    "circle": (230, 60, 60),
    "square": (60, 200, 60),
    "triangle": (70, 90, 240),
    "star": (240, 220, 50),
    "heart": (220, 70, 220),
}


@dataclass(frozen=True, eq=False)
class Picture:
    """One drawn picture: `image` (128, 128, 3) RGB uint8, `mask` (128, 128) uint8 with 255 inside the shape, its
    outline's `points` (n, 2) in pixels, and the words of its prompt."""

    image: Image
    mask: Image
    points: Points
    shape: str
    colour: str
    background: str

    @property
    def prompt(self) -> str:
        return f"a {self.colour} {self.shape} on a {self.background} background"


def unit_outline(shape: str) -> Points:
    """Outline of `shape` about the origin, about one unit in radius, (n, 2), y downwards."""
    turn = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    if shape == "circle":
        return np.stack([np.cos(turn), np.sin(turn)], 1)
    if shape == "square":
        return np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * 0.85
    if shape == "triangle":
        return _regular(3)
    if shape == "star":
        return np.stack([_regular(5), 0.45 * _regular(5, np.pi / 5)], 1).reshape(-1, 2)
    if shape == "heart":
        x = 16 * np.sin(turn) ** 3
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return np.stack([x, -y], 1) / 17
    raise ValueError(f"unknown shape {shape!r}, known are {', '.join(SHAPES)}")


def place(outline: Points, centre: tuple[float, float], radius: float, angle: float) -> Points:
    cosine, sine = np.cos(angle), np.sin(angle)
    return outline @ np.array([[cosine, sine], [-sine, cosine]]) * radius + np.asarray(centre)


def coverage(points: Points, size: int = SIZE) -> npt.NDArray[np.float32]:
    """Share of every pixel that the polygon covers, (size, size) float32 in 0..1."""
    fine = np.zeros((size * SUPERSAMPLING, size * SUPERSAMPLING), np.uint8)
    corners = np.round((points + 0.5) * SUPERSAMPLING).astype(np.int32)
    cv2.fillPoly(fine, [corners], (255,))
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def compose(points: Points, colour: tuple[int, ...], background: tuple[int, ...]) -> tuple[Image, Image]:
    """The picture and the mask of a polygon in one flat colour on another."""
    share = coverage(points)[..., None]
    image = np.asarray(background, np.float32) * (1 - share) + np.asarray(colour, np.float32) * share
    return np.round(image).astype(np.uint8), np.where(share[..., 0] > 0.5, 255, 0).astype(np.uint8)


def draw(rng: random.Random) -> Picture:
    """A random picture of the demo world."""
    shape = rng.choice(SHAPES)
    colour, background = rng.sample(list(COLOURS), 2)
    radius = rng.uniform(30, 52)
    centre = rng.uniform(46, 82), rng.uniform(46, 82)
    points = place(unit_outline(shape), centre, radius, rng.uniform(-0.3, 0.3))
    image, mask = compose(points, COLOURS[colour], COLOURS[background])
    return Picture(image, mask, points, shape, colour, background)


def pictures(count: int, seed: int) -> list[Picture]:
    rng = random.Random(seed)
    return [draw(rng) for _ in range(count)]


def _regular(corners: int, turned: float = 0.0) -> Points:
    angles = turned - np.pi / 2 + np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], 1)
