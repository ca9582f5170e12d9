"""The least weight that reaches a target."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_controlnet.measure.search import CLOSE, MOST_JOBS, Point, find_weight


def sigmoid(middle: float, steep: float, low: float = 0.2, high: float = 0.95) -> object:
    return lambda weight: low + (high - low) / (1 + math.exp(-steep * (weight - middle)))


@given(
    middle=st.floats(0.1, 0.9), steep=st.floats(1, 16), target=st.floats(0.25, 0.9),
)  # fmt: skip
def test_it_is_reached_closely_in_few_jobs(middle: float, steep: float, target: float) -> None:
    curve = sigmoid(middle, steep)
    asked: list[float] = []

    def adherence(weight: float) -> float:
        asked.append(weight)
        return curve(weight)  # type: ignore[operator]

    found = find_weight(adherence, target)
    assert len(asked) == len(found.curve) <= MOST_JOBS
    assert len(set(asked)) == len(asked)
    assert all(weight == round(weight, 2) for weight in asked)
    if not found.reached:
        assert curve(1.0) < target - CLOSE  # type: ignore[operator]
        assert found.adherence == max(point.adherence for point in found.curve)
    elif found.weight > 0:
        assert abs(found.adherence - target) <= CLOSE + 1e-9
        assert curve(found.weight - 0.2) < target  # type: ignore[operator]


def test_without_control_is_enough() -> None:
    found = find_weight(lambda _weight: 0.7, 0.6)
    assert (found.weight, found.reached, len(found.curve), found.floor) == (0, True, 1, 0.7)


def test_of_weights_that_do_nothing_the_strongest_is_told() -> None:
    """Weight 0 would switch the unit off."""
    assert find_weight(lambda _: 0.0, 0.8).weight == 1


def test_out_of_reach_gives_the_best() -> None:
    found = find_weight({0.0: 0.3, 1.0: 0.5}.__getitem__, 0.9)
    assert (found.weight, found.adherence, found.reached) == (1, 0.5, False)


def test_a_jump_ends_where_weights_are_the_same() -> None:
    found = find_weight(lambda weight: float(weight > 0.37), 0.5)
    assert found.reached
    assert 0.37 < found.weight < 0.5
    assert len(found.curve) <= MOST_JOBS


@given(st.lists(st.floats(0, 1), min_size=MOST_JOBS, max_size=MOST_JOBS), st.floats(0.05, 0.95))
def test_whatever_the_curve_the_answer_is_one_of_the_jobs(values: list[float], target: float) -> None:
    answers = iter(values)
    found = find_weight(lambda _weight: next(answers), target)
    assert Point(found.weight, found.adherence) in found.curve
    assert found.reached == any(point.adherence >= target - CLOSE for point in found.curve)
    if found.reached:
        assert all(point.weight >= found.weight for point in found.curve if point.adherence >= target - CLOSE)


@pytest.mark.parametrize(("highest", "top"), [(0.355, 0.35), (0.29, 0.29), (0.01, 0.01), (2.0, 2.0)])
def test_no_weight_above_the_highest_is_tried(highest: float, top: float) -> None:
    assert find_weight(lambda _: 0.0, 0.8, highest=highest).weight == top


def test_a_search_of_one_job_is_none() -> None:
    with pytest.raises(ValueError, match="two jobs"):
        find_weight(lambda _weight: 0.5, 0.5, most=1)
