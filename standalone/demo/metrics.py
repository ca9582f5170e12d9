"""How well a picture follows its control map and its prompt."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lib_controlnet.measure.lines import TOLERANCE, edge_score

from .shapes import COLOURS, Image, Picture


def edges(image: Image) -> np.ndarray:
    """The canny preprocessor's lines at its default thresholds, (h, w) bool."""
    return cv2.Canny(np.ascontiguousarray(image), 100, 200) > 0


def edge_f1(image: Image, control: Image, tolerance: int = TOLERANCE) -> float:
    """F1 of the lines of `image` (h, w, 3) against a line map (h, w[, 3]) of the same size."""
    wanted = (control if control.ndim == 2 else control.max(2)) > 127
    return edge_score(edges(image), wanted, tolerance).f1


@dataclass(frozen=True)
class ColourScore:
    """Mean RGB distances of object and background to the prompted colours, and whether the prompted ones are
    nearest."""

    object_distance: float
    background_distance: float
    object_right: bool
    background_right: bool

    @property
    def error(self) -> float:
        return (self.object_distance + self.background_distance) / 2

    @property
    def right(self) -> bool:
        return self.object_right and self.background_right


def colour_score(image: Image, mask: Image, colour: str, background: str) -> ColourScore:
    """Colours of `image` (h, w, 3) well inside and well outside of `mask` (h, w), 255 = object."""
    inside = _mean_colour(image, mask > 127)
    outside = _mean_colour(image, mask <= 127)
    return ColourScore(
        _distance_to(inside, colour),
        _distance_to(outside, background),
        nearest_colour(inside) == colour,
        nearest_colour(outside) == background,
    )


def picture_colours(image: Image, picture: Picture) -> ColourScore:
    return colour_score(image, picture.mask, picture.colour, picture.background)


def nearest_colour(rgb: np.ndarray) -> str:
    return min(COLOURS, key=lambda name: _distance_to(rgb, name))


def _distance_to(rgb: np.ndarray, name: str) -> float:
    return float(np.linalg.norm(rgb - np.asarray(COLOURS[name])))


def _mean_colour(image: Image, where: np.ndarray) -> np.ndarray:
    """Mean of the pixels at least 3 from the border of `where`, where there are any."""
    core = cv2.erode(where.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    return image[core if core.any() else where].astype(np.float64).mean(0)
