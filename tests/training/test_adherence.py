"""How the trainer sees that samples follow their conditions, and finds the step at which they begin to."""

from __future__ import annotations

import numpy as np
import pytest

from lib_controlnet.training.adherence import adherence, find_convergence


def lines(*columns: int) -> np.ndarray:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, list(columns)] = 255
    return picture


def test_lines_are_compared_within_two_pixels() -> None:
    assert adherence(lines(10), lines(12), "lines") == 1.0
    assert adherence(lines(10), lines(13), "lines") == 0.0
    assert adherence(lines(10, 20), lines(10), "lines") == pytest.approx(2 / 3)


def test_pixels_are_compared_by_their_difference() -> None:
    grey = np.full((4, 4, 3), 51, np.uint8)
    assert adherence(grey, np.zeros_like(grey), "pixels") == pytest.approx(0.8)
    assert adherence(grey, grey, "pixels") == 1.0


def test_sudden_convergence_is_the_first_look_past_half_of_the_way() -> None:
    """The curve of training.md's shapes: .144 without control, .147 at 174, .493 at 405, .621 at 636; ceiling .86."""
    curve = [(0, 0.144), (174, 0.147), (405, 0.493), (636, 0.621), (870, 0.730)]
    found = find_convergence(curve, 0.86)
    assert found is not None
    assert (found.after, found.step) == (405, 636)
    assert (found.steepest, found.rise) == (405, pytest.approx(0.346))
    assert find_convergence(curve[:3], 0.86) is None
    assert find_convergence(curve[:1], 0.86) is None
    assert find_convergence([(0, 0.1), (100, 0.1), (200, 0.1)], 0.1) is None
