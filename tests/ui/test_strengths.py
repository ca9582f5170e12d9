"""One strength over the exact numbers."""

from __future__ import annotations

import pytest

from lib_controlnet.core.control_types import ALL, MODEL_WORDS
from lib_controlnet.core.strengths import STRENGTHS, WHOLE, as_numbers


@pytest.mark.parametrize("control_type", [ALL, *MODEL_WORDS])
def test_strength_grows_with_itself_and_ends_at_all(control_type: str) -> None:
    curve = STRENGTHS.get(control_type, WHOLE)
    strengths = [step / 20 for step in range(21)]
    weights, ends = [curve.weight(s) for s in strengths], [curve.end(s) for s in strengths]
    assert weights == sorted(weights)
    assert ends == sorted(ends)
    assert (weights[0], weights[-1], ends[-1]) == (0, 1, 1)
    assert all(0 < end <= 1 for end in ends)


@pytest.mark.parametrize("control_type", ["Inpaint", "Tile", "IP-Adapter", "Reference", "InstructP2P", "Recolor"])
def test_what_must_act_in_every_step_does(control_type: str) -> None:
    curve = STRENGTHS.get(control_type, WHOLE)
    assert {curve.end(step / 10) for step in range(11)} == {1}


def test_the_page_is_told_the_same_numbers() -> None:
    assert set(as_numbers()) <= {ALL, *MODEL_WORDS}
    assert as_numbers()["Canny"] == (STRENGTHS["Canny"].power, STRENGTHS["Canny"].shortest)
