"""The line-art use: colours of the result, lines of the drawing."""

from __future__ import annotations

import numpy as np

from standalone.demo.colouring import PROMPTS, SIDE, coloured, ink_star, with_own_lines
from standalone.demo.metrics import colour_score
from standalone.demo.run import inside_of


def test_ink_stays_and_paper_lets_the_colour_through() -> None:
    drawing = np.full((4, 4, 3), 255, np.uint8)
    drawing[1] = 0
    drawing[2] = 51
    result = with_own_lines(np.full((2, 2, 3), (200, 100, 0), np.uint8), drawing)
    assert result[0].tolist() == [[200, 100, 0]] * 4
    assert result[1].tolist() == [[0, 0, 0]] * 4
    assert result[2].tolist() == [[40, 20, 0]] * 4


def test_a_drawing_is_coloured_inside_its_lines() -> None:
    drawing = ink_star()
    kept = with_own_lines(coloured(drawing, PROMPTS[:1])[0], drawing)
    assert kept.shape == (SIDE, SIDE, 3)
    ink = drawing.max(2) < 60
    assert kept[ink].max() <= drawing[ink].max()
    inside = inside_of(ink)
    inside[ink] = 0
    assert colour_score(kept, inside, "yellow", "blue").right
