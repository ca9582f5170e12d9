"""The generation parameters of a unit: the peers' text to the letter, and back without loss."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_controlnet.core.infotext import FIELDS, format_unit, parse_text, parse_units, read_units, unit_key
from lib_controlnet.core.modes import ControlMode, HiResOption, ResizeMode, UnionType
from lib_controlnet.core.units import ControlNetUnit, parse_unit

CANNY = ControlNetUnit(
    enabled=True,
    preprocessor="canny",
    model="control_v11p_sd15_canny [d14c016b]",
    resolution=512,
    threshold_a=100.0,
    threshold_b=200.0,
)
PEER_TEXT = (
    "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1.0, Resize Mode: Crop and Resize, "
    "Processor Res: 512, Threshold A: 100.0, Threshold B: 200.0, Guidance Start: 0.0, Guidance End: 1.0, "
    "Pixel Perfect: False, Control Mode: Balanced"
)


def test_text_is_the_peers() -> None:
    assert format_unit(CANNY) == PEER_TEXT


def test_resolved_values_replace_the_sentinels() -> None:
    asked = ControlNetUnit(enabled=True, preprocessor="canny", model="canny")
    text = format_unit(asked, model="control_v11p_sd15_canny [d14c016b]", resolution=512, params=(100.0, 200.0))
    assert text == PEER_TEXT


def test_a_parameter_that_the_preprocessor_does_not_have_was_not_used() -> None:
    asked = ControlNetUnit(threshold_a=5.0, threshold_b=7.0)
    assert "Threshold A: 3.0, Threshold B: -1.0" in format_unit(asked, params=(3,))
    assert "Threshold A: -1.0, Threshold B: -1.0" in format_unit(asked, params=())
    assert "Threshold A: 5.0, Threshold B: 7.0" in format_unit(asked)


names = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1).filter(
    lambda name: name == name.strip().strip('"').strip() and name.lower() != "none" and " ".join(name.split()) == name
)
fractions = st.integers(0, 100).map(lambda n: n / 100)
units = st.builds(
    ControlNetUnit,
    enabled=st.just(True),
    preprocessor=names,
    model=names,
    weight=fractions.map(lambda x: 2 * x),
    resize_mode=st.sampled_from(ResizeMode),
    resolution=st.one_of(st.just(-1), st.integers(64, 2048)),
    threshold_a=st.one_of(st.just(-1.0), st.floats(0, 1e6)),
    threshold_b=st.one_of(st.just(-1.0), st.floats(0, 1e6)),
    guidance_start=fractions.map(lambda x: x / 2),
    guidance_end=fractions.map(lambda x: 0.5 + x / 2),
    pixel_perfect=st.booleans(),
    control_mode=st.sampled_from(ControlMode),
    hr_option=st.sampled_from(HiResOption),
    crop_to_mask=st.booleans(),
    union_type=st.sampled_from(UnionType),
    layer_weights=st.one_of(st.none(), st.lists(fractions, min_size=1, max_size=13).map(tuple)),
)


@settings(max_examples=60, deadline=None)
@given(units)
def test_round_trip(unit: ControlNetUnit) -> None:
    read, problems = read_units({unit_key(3): format_unit(unit)})
    assert not problems
    assert _plain(read[3]) == {**_plain(unit), "index": 3}


def _plain(unit: ControlNetUnit) -> dict[str, Any]:
    return dict(vars(unit))


def test_forge_text() -> None:
    text = (
        "Module: depth_midas, Model: diffusers_xl_depth_full [2f51180b], Weight: 0.8,"
        " Resize Mode: ResizeMode.INNER_FIT, Processor Res: 512, Guidance Start: 0.1, Guidance End: 0.9,"
        " Pixel Perfect: True, Control Mode: My prompt is more important, Hr Option: HiResFixOption.HIGH_RES_ONLY"
    )
    read, problems = read_units({"ControlNet 0": text})
    assert not problems
    unit = read[0]
    assert (unit.preprocessor, unit.model) == ("depth_midas", "diffusers_xl_depth_full [2f51180b]")
    assert (unit.weight, unit.guidance_start, unit.guidance_end) == (0.8, 0.1, 0.9)
    assert unit.resize_mode is ResizeMode.crop_and_resize
    assert unit.hr_option is HiResOption.high
    assert (unit.resolution, unit.threshold_a) == (512, -1.0)


def test_text_of_2023() -> None:
    text = (
        "preprocessor: canny, model: control_v11p_sd15_canny [d14c016b], weight: 1, starting/ending: (0.2, 0.8), "
        "resize mode: Resize and Fill, pixel perfect: False, control mode: ControlNet is more important, "
        "preprocessor params: (512, 100, 200)"
    )
    unit = read_units({"ControlNet 1": text})[0][1]
    assert (unit.preprocessor, unit.model, unit.weight) == ("canny", "control_v11p_sd15_canny [d14c016b]", 1.0)
    assert (unit.guidance_start, unit.guidance_end) == (0.2, 0.8)
    assert (unit.resolution, unit.threshold_a, unit.threshold_b) == (512, 100.0, 200.0)
    assert (unit.resize_mode, unit.control_mode) == (ResizeMode.resize_and_fill, ControlMode.control)


@pytest.mark.parametrize("prefix", ["ControlNet", "ControlNet-0", "ControlNet 0"])
def test_flat_keys_of_early_2023(prefix: str) -> None:
    params = {
        "Steps": "20",
        f"{prefix} Enabled": "True",
        f"{prefix} Module": "canny",
        f"{prefix} Model": "control_canny-fp16 [e3fe7712]",
        f"{prefix} Weight": "0.5",
        f"{prefix} Guidance Strength": "0.7",
    }
    unit = read_units(params)[0][0]
    assert (unit.preprocessor, unit.weight, unit.guidance_end) == ("canny", 0.5, 0.7)


def test_disabled_flat_unit_is_none() -> None:
    assert parse_units({"ControlNet-1 Enabled": "False", "ControlNet-1 Module": "canny"}) == {}


def test_each_unit_keeps_its_index() -> None:
    params = {"Steps": "20", "ControlNet 2": PEER_TEXT, "ControlNet 0": PEER_TEXT, "ControlNet": "x"}
    assert sorted(parse_units(params)) == [0, 2]


def test_quoted_text_and_extra_keys_are_read() -> None:
    fields = parse_text(f'"{PEER_TEXT}, Low Vram: True"')
    assert fields["low_vram"] == "True"
    assert parse_unit(fields, 0).low_vram is True


def test_what_cannot_be_read_is_told_and_the_rest_kept() -> None:
    read, problems = read_units({"ControlNet 0": PEER_TEXT.replace("Weight: 1.0", "Weight: heavy") + ", Foo: 1"})
    assert read[0].weight == 1.0
    assert read[0].threshold_b == 200.0
    assert [problem.field for problem in problems] == ["weight", None]
    assert 'no field "foo"' in str(problems[1])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.text("adeghilmnoprstuw :,()/-0123456789", max_size=80))
def test_whatever_is_pasted_is_no_failure(anything: str, likely: str) -> None:
    texts = (anything, likely, f"preprocessor: {likely}", f"Module: {anything}, Weight: {likely}")
    for text in texts:
        read, problems = read_units({"ControlNet 0": text})
        assert all(problem.unit == 0 for problem in problems)
        assert set(read) == ({0} if text else set())


def test_peers_read_our_text() -> None:
    """The peers split on commas, then at ": ", and take these eleven keys."""
    unit = parse_unit({**vars(CANNY), "model": "a, b: c", "hr_option": 1, "layer_weights": [1, 0.5]}, 0)
    pairs = dict(part.strip().split(": ") for part in format_unit(unit).split(","))
    assert list(pairs)[: len(FIELDS)] == list(FIELDS)
    assert set(pairs) - set(FIELDS) == {"Hr Option", "Layer Weights"}
