"""Metrics against cases counted by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lib_controlnet.measure.lines import edge_score
from standalone.demo.metrics import colour_score, edge_f1, edges, nearest_colour


def lines(*columns: int) -> np.ndarray:
    """Vertical lines over 10 rows of a 10x20 field."""
    field = np.zeros((10, 20), bool)
    field[:, list(columns)] = True
    return field


@pytest.mark.parametrize(
    ("found", "wanted", "precision", "recall"),
    [
        (lines(5), lines(5), 1, 1),
        (lines(7), lines(5), 1, 1),  # two pixels away still counts
        (lines(8), lines(5), 0, 0),  # three do not
        (lines(5, 15), lines(5), 0.5, 1),
        (lines(5), lines(5, 15), 1, 0.5),
        (lines(), lines(5), 0, 0),
        (lines(5), lines(), 0, 0),
        (lines(), lines(), 1, 1),
    ],
)
def test_edge_score(found: np.ndarray, wanted: np.ndarray, precision: float, recall: float) -> None:
    score = edge_score(found, wanted)
    assert (score.precision, score.recall) == (precision, recall)


def test_f1_is_the_harmonic_mean() -> None:
    assert edge_score(lines(5, 15), lines(5)).f1 == pytest.approx(2 / 3)
    assert edge_score(lines(), lines(5)).f1 == 0


def test_edge_distance_is_euclidean() -> None:
    """A dilation by a round kernel must give the same set: (2, 1) away is out of reach of 2, (1, 1) is not."""
    dot, diagonal, knight = (np.zeros((9, 9), bool) for _ in range(3))
    dot[4, 4] = diagonal[5, 5] = knight[6, 5] = True
    assert edge_score(diagonal, dot).f1 == 1
    assert edge_score(knight, dot).f1 == 0


def test_edges_of_a_picture_against_its_own_map() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    cv2.circle(image, (32, 32), 20, (255, 0, 0), -1)
    assert edge_f1(image, cv2.Canny(image, 100, 200)) == 1
    assert edges(image).any()
    assert edge_f1(np.roll(image, 8, axis=1), cv2.Canny(image, 100, 200)) < 0.6


def test_colours_inside_and_outside() -> None:
    image = np.full((40, 40, 3), (250, 250, 10), np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    image[10:30, 10:30] = (0, 0, 255)
    image[10:12] = (0, 255, 0)  # near the border: not looked at
    score = colour_score(image, mask, "blue", "yellow")
    assert score.right
    assert score.object_distance == 0
    assert score.background_distance == pytest.approx(np.sqrt(25 + 25 + 100), abs=8)
    wrong = colour_score(image, mask, "red", "yellow")
    assert (wrong.object_right, wrong.background_right, wrong.right) == (False, True, False)
    assert wrong.object_distance == pytest.approx(255 * np.sqrt(2))


def test_nearest_colour() -> None:
    assert nearest_colour(np.array([250, 5, 5])) == "red"
    assert nearest_colour(np.array([120, 125, 135])) == "gray"
