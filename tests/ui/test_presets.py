"""Presets of a unit: saved, read in both formats, put into the widgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_controlnet.core.errors import UnitError
from lib_controlnet.core.image_prompt import Combine, EmbedsScaling, Uncond, WeightType
from lib_controlnet.core.infotext import format_unit, read_units
from lib_controlnet.core.modes import ControlMode, HiResOption, PulidMode, ResizeMode, UnionType
from lib_controlnet.core.schedule import WeightCurve
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.engine.presets import Presets, dumps, loads

UNIT = ControlNetUnit(
    preprocessor="canny",
    model="a, model: of two parts 100% [12345678]",
    weight=0.85,
    resize_mode=ResizeMode.resize_and_fill,
    resolution=640,
    threshold_a=12.0,
    threshold_b=34.0,
    guidance_start=0.1,
    guidance_end=0.9,
    pixel_perfect=True,
    control_mode=ControlMode.prompt,
    hr_option=HiResOption.low,
    low_vram=True,
    crop_to_mask=False,
    save_map=False,
    layer_weights=(0.1, 0.2),
    weight_schedule=WeightCurve(((0.0, 1.0), (0.25, 0.333333), (0.25, 2.0))),
    hr_weight_schedule=WeightCurve(((0.5, 0.1),)),
    uncond_weight=0.4,
    batch_weights=(1.0, 0.5),
    union_type=UnionType.depth,
    loopback=True,
    ip_weight_type=WeightType.composition_precise,
    ip_style_boost=1.5,
    ip_composition_boost=0.25,
    ip_layer_weights=((0, 1.0), (11, -0.5)),
    ip_combine=Combine.norm_average,
    ip_scaling=EmbedsScaling.k_mean_v_penalty,
    ip_uncond=Uncond.noise,
    ip_noise=0.1,
    ip_shortcut=0.5,
    ip_lora=0.75,
    pulid_mode=PulidMode.neutral,
)


def read(text: str) -> ControlNetUnit:
    units, problems = read_units({"ControlNet 0": text})
    assert problems == []
    return units[0]


def test_every_setting_survives(tmp_path: Path) -> None:
    presets = Presets(tmp_path / "presets")
    presets.save(" my preset ", UNIT)
    assert presets.names() == ["my preset"]
    again = read(presets.load("my preset"))
    assert {**vars(again), "enabled": False} == vars(UNIT)
    presets.delete("my preset")
    assert presets.names() == []


def test_texts_of_the_peer_are_read(tmp_path: Path) -> None:
    text = format_unit(ControlNetUnit(preprocessor="canny", weight=0.5))
    (tmp_path / "theirs.txt").write_text(text)
    presets = Presets(tmp_path)
    assert presets.names() == ["theirs"]
    assert read(presets.load("theirs")).weight == 0.5


@pytest.mark.parametrize("name", ["", "  ", "../up", "a/b", "a\\b", ".hidden", "x" * 90, "a\0b"])
def test_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnitError, match="name of a preset"):
        Presets(tmp_path).save(name, UNIT)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"unit": 3}', "no fields here", json.dumps([1])])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(UnitError, match="no preset"):
        loads(text)


def test_json_is_for_people_too() -> None:
    content = json.loads(dumps(UNIT))
    assert content["unit"]["module"] == "canny"
    assert content["unit"]["weight"] == "0.85"


def test_missing_presets_are_said(tmp_path: Path) -> None:
    for action in (Presets(tmp_path).load, Presets(tmp_path).delete):
        with pytest.raises(UnitError, match="no such preset"):
            action("gone")


# -- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"unit": ', b'{"a":' * 100_000, b"[" * 100_000, b"\xff\xfe{}", b"\0" * 512]
)
def test_a_damaged_preset_is_put_aside_and_said(tmp_path: Path, content: bytes) -> None:
    presets = Presets(tmp_path)
    (tmp_path / "mine.json").write_bytes(content)
    with pytest.raises(UnitError, match=r'"mine" is damaged.*mine\.json\.damaged-1'):
        presets.load("mine")
    assert (tmp_path / "mine.json.damaged-1").read_bytes() == content
    assert presets.names() == []
    presets.save("mine", UNIT)
    assert read(presets.load("mine")).weight == UNIT.weight


@pytest.mark.parametrize("value", ["[1]", "{}", "null"])
def test_wrong_types_in_a_preset_are_named(tmp_path: Path, value: str) -> None:
    (tmp_path / "mine.json").write_text('{"unit": {"module": "canny", "weight": ' + value + "}}")
    with pytest.raises(UnitError, match=r"no setting can have.*weight as"):
        Presets(tmp_path).load("mine")
    assert (tmp_path / "mine.json").is_file()


@pytest.mark.parametrize("text", ["{" * 100_000, '{"unit":' * 100_000, "[" * 100_000])
def test_text_nested_deeply_is_no_preset(text: str) -> None:
    with pytest.raises(UnitError, match="no preset"):
        loads(text)


def test_a_preset_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    presets = Presets(tmp_path)
    presets.save("mine", UNIT)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UnitError, match="cannot be saved"):
        presets.save("mine", ControlNetUnit())
    assert read(presets.load("mine")).weight == UNIT.weight


@pytest.mark.parametrize("name", ["🦊 fuchs", "a.b", "è", "²"])
def test_odd_names_of_presets_are_found_again(tmp_path: Path, name: str) -> None:
    presets = Presets(tmp_path)
    presets.save(name, UNIT)
    assert presets.names() == [name]
    assert read(presets.load(name)).weight == UNIT.weight
    with pytest.raises(UnitError):
        presets.save("\ud800", UNIT)
