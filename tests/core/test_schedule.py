"""Guidance range and layer weights against the figures of the peers' documents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_controlnet.core.errors import UnitError
from lib_controlnet.core.modes import ControlMode
from lib_controlnet.core.schedule import GuidanceRange, WeightCurve, layer_weights, legacy_soft_ramp, soft_ramp

SD1_RAMP = (0.0994, 0.1205, 0.1461, 0.1770, 0.2146, 0.2601, 0.3153, 0.3822, 0.4633, 0.5615, 0.6806, 0.825, 1.0)


@pytest.mark.parametrize(
    ("start", "end", "progress", "inside"),
    [
        (0.0, 1.0, 0.0, True),
        (0.0, 1.0, 0.95, True),
        (0.0, 1.0, 1.8, True),  # DPM adaptive calls more often than planned
        (0.2, 0.5, 0.19, False),
        (0.2, 0.5, 0.2, True),
        (0.2, 0.5, 0.5, True),
        (0.2, 0.5, 0.51, False),
        (0.0, 0.0, 0.0, True),
        (0.0, 0.0, 0.05, False),
        (1.0, 1.0, 0.95, False),
    ],
)
def test_guidance_range(start, end, progress, inside):
    assert GuidanceRange(start, end).contains(progress) is inside


def test_soft_ramp_of_sd1_is_the_published_one():
    assert soft_ramp(13) == pytest.approx(SD1_RAMP, abs=6e-5)
    assert legacy_soft_ramp(13) == soft_ramp(13)


def test_sdxl_ramp_ends_at_one_and_the_peers_at_half():
    assert soft_ramp(10)[-1] == 1.0
    assert legacy_soft_ramp(10)[-1] == pytest.approx(0.5615, abs=1e-4)
    assert legacy_soft_ramp(10) == pytest.approx(SD1_RAMP[:10], abs=6e-5)


def test_layer_weights_by_mode():
    assert layer_weights(13, 0.7, ControlMode.balanced) == (0.7,) * 13
    for mode in (ControlMode.prompt, ControlMode.control):
        assert layer_weights(13, 2.0, mode) == pytest.approx([2 * w for w in SD1_RAMP], abs=2e-4)
    assert layer_weights(13, 1.0, ControlMode.balanced, force_soft=True) == soft_ramp(13)


def test_custom_weights_replace_weight_and_ramp():
    custom = [i / 10 for i in range(10)]
    assert layer_weights(10, 0.3, ControlMode.prompt, custom=custom) == tuple(custom)


def test_a_wrong_length_says_both_numbers():
    with pytest.raises(UnitError, match="12 weights for 13 layers"):
        layer_weights(13, 1.0, ControlMode.balanced, custom=[1.0] * 12)


PARTS = st.floats(0.0, 1.0, allow_subnormal=False)  # by those numpy divides to infinity
WEIGHTS = st.floats(0.0, 2.0)
CURVES = st.lists(st.tuples(PARTS, WEIGHTS), min_size=1, max_size=8).map(
    lambda points: WeightCurve(tuple(sorted(points, key=lambda point: point[0])))
)


@given(st.lists(PARTS, min_size=1, max_size=8, unique=True), st.data(), PARTS)
def test_a_curve_is_numpys_interpolation(parts: list[float], data: st.DataObject, progress: float) -> None:
    weights = data.draw(st.lists(WEIGHTS, min_size=len(parts), max_size=len(parts)))
    curve = WeightCurve(tuple(zip(sorted(parts), weights, strict=True)))
    assert curve.at(progress) == pytest.approx(np.interp(progress, sorted(parts), weights), abs=1e-9)


@given(st.lists(PARTS, min_size=1, max_size=8), WEIGHTS, st.floats(0.0, 3.0))
def test_a_level_curve_is_the_weight_to_the_bit(parts: list[float], weight: float, progress: float) -> None:
    curve = WeightCurve(tuple((part, weight) for part in sorted(parts)))
    assert curve.at(progress) == weight
    assert curve.level
    assert curve.peak == weight


@given(CURVES, PARTS)
def test_a_curve_stays_between_its_weights_and_ends_where_it_says(curve: WeightCurve, progress: float) -> None:
    weights = [weight for _, weight in curve.points]
    assert min(weights) - 1e-9 <= curve.at(progress) <= curve.peak + 1e-9
    if progress > curve.end or (progress == curve.end and curve.end < 1.0):
        assert curve.at(progress) == 0.0


def test_a_curve_jumps_where_two_points_have_one_place() -> None:
    curve = WeightCurve(((0.0, 1.0), (0.5, 1.0), (0.5, 0.0)))
    assert [curve.at(part) for part in (0.0, 0.49, 0.5, 1.0, 1.7)] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert curve.end == 0.5
    assert str(curve) == "0=1/0.5=1/0.5=0"
