"""Units in every spelling of their callers; wrong ones name field, value and remedy."""

from __future__ import annotations

import base64
import dataclasses
import io
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_controlnet.core.errors import UnitError
from lib_controlnet.core.image_prompt import Combine, EmbedsScaling, WeightType
from lib_controlnet.core.legacy import SPELLINGS
from lib_controlnet.core.modes import ControlMode, HiResOption, InputMode, PulidMode, ResizeMode, UnionType
from lib_controlnet.core.schedule import WeightCurve
from lib_controlnet.core.units import ControlNetUnit, is_unit, parse_unit

RGB = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
MASK = np.zeros((8, 8), np.uint8)
MASK[2:5, 3:6] = 255


def png(array: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def unit(**fields: Any) -> ControlNetUnit:
    return parse_unit({"enabled": True, **fields}, 1)


def test_defaults() -> None:
    assert vars(parse_unit({}, 4)) == vars(ControlNetUnit(index=4))


def test_what_webuiapi_sends() -> None:
    read = unit(
        image="",
        mask=None,
        module="canny",
        model="control_v11p_sd15_canny [d14c016b]",
        weight=0.75,
        resize_mode="Resize and Fill",
        low_vram=False,
        processor_res=512,
        threshold_a=64,
        threshold_b=128,
        guidance_start=0.0,
        guidance_end=1.0,
        control_mode="ControlNet is more important",
        pixel_perfect=False,
        hr_option="Both",
    )
    assert read.image is None
    assert (read.preprocessor, read.weight, read.resolution) == ("canny", 0.75, 512)
    assert (read.resize_mode, read.control_mode) == (ResizeMode.resize_and_fill, ControlMode.control)


@pytest.mark.parametrize("given", [0, "0", 0.0, "0.0", "Just Resize", "just resize", "ResizeMode.RESIZE", "RESIZE", 3])
def test_just_resize(given: object) -> None:
    assert unit(resize_mode=given).resize_mode is ResizeMode.just_resize


@pytest.mark.parametrize(
    "given",
    [1, "1", "Crop and Resize", "Inner Fit (Scale to Fit)", "Scale to Fit (Inner Fit)", "ResizeMode.INNER_FIT"],
)
def test_crop_and_resize(given: object) -> None:
    assert unit(resize_mode=given).resize_mode is ResizeMode.crop_and_resize


@pytest.mark.parametrize(
    "given",
    [2, "Resize and Fill", "Outer Fit (Shrink to Fit)", "Envelope (Outer Fit)", "ResizeMode.OUTER_FIT", "OUTER_FIT"],
)
def test_resize_and_fill(given: object) -> None:
    assert unit(resize_mode=given).resize_mode is ResizeMode.resize_and_fill


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        (0, ControlMode.balanced),
        (1, ControlMode.prompt),
        (2, ControlMode.control),
        ("Balanced", ControlMode.balanced),
        ("My prompt is more important", ControlMode.prompt),
        ("ControlNet is more important", ControlMode.control),
        ("ControlMode.CONTROL", ControlMode.control),
        ("Prefer Prompt", ControlMode.prompt),
        ("Prefer ControlNet", ControlMode.control),
    ],
)
def test_control_mode(given: object, mode: ControlMode) -> None:
    assert unit(control_mode=given).control_mode is mode


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (0, HiResOption.both),
        (1, HiResOption.low),
        ("High res only", HiResOption.high),
        ("HiResFixOption.BOTH", HiResOption.both),
        ("HiResFixOption.LOW_RES_ONLY", HiResOption.low),
        ("HiResFixOption.HIGH_RES_ONLY", HiResOption.high),
    ],
)
def test_hires_option(given: object, option: HiResOption) -> None:
    assert unit(hr_option=given).hr_option is option


@pytest.mark.parametrize("member", UnionType)
def test_union_type_in_the_peers_member_names(member: UnionType) -> None:
    peers_name = str(member.value).upper().replace(" ", "_")
    assert unit(union_control_type=f"ControlNetUnionControlType.{peers_name}").union_type is member
    assert unit(union_control_type=member.value).union_type is member


@pytest.mark.parametrize("field", ["resize_mode", "control_mode", "hr_option", "input_mode"])
def test_a_refused_number_says_which_are_taken(field: str) -> None:
    with pytest.raises(UnitError) as refused:
        unit(**{field: 99})
    most = int(refused.value.remedy.partition("from 0 to ")[2].split()[0])
    for number in range(most + 1):
        more = {"images": [RGB]} if field == "input_mode" else {}
        unit(**{field: number}, **more)
    with pytest.raises(UnitError):
        unit(**{field: most + 1})


def test_of_a_list_the_picture_that_is_wrong_is_named() -> None:
    with pytest.raises(UnitError) as refused:
        unit(input_mode="batch", images=[RGB, "aGVsbG8gd29ybGQ="])
    assert "picture 2 of the list: 11 bytes" in str(refused.value)
    assert refused.value.field == "images"


def test_members_of_another_library() -> None:
    class ResizeModeOfThePeer(Enum):
        RESIZE = "Just Resize"
        OUTER_FIT = "Resize and Fill"

    class NumberedMode(Enum):
        CONTROL = 2

    assert unit(resize_mode=ResizeModeOfThePeer.OUTER_FIT).resize_mode is ResizeMode.resize_and_fill
    assert unit(control_mode=NumberedMode.CONTROL).control_mode is ControlMode.control


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"guidance": 0.5}, "guidance_end", 0.5),
        ({"guidance_strength": 0.5}, "guidance_end", 0.5),
        ({"lowvram": True}, "low_vram", True),
        ({"guessmode": True}, "control_mode", ControlMode.control),
        ({"guess_mode": False}, "control_mode", ControlMode.balanced),
        ({"guessmode": True, "control_mode": 1}, "control_mode", ControlMode.prompt),
        ({"preprocessor": "canny"}, "preprocessor", "canny"),
        ({"module": None}, "preprocessor", "none"),
        ({"module": "None"}, "preprocessor", "none"),
        ({"model": '"canny [1234abcd]"'}, "model", "canny [1234abcd]"),
        ({"model": ""}, "model", "None"),
        ({"processor_res": -100}, "resolution", -100),
        ({"processor_res": 10**400}, "resolution", 10**9),
        ({"threshold_b": 10**400}, "threshold_b", float("inf")),
        ({"processor_res": 512.0}, "resolution", 512),
        ({"Processor Res": "512"}, "resolution", 512),
        ({"threshold_a": -100}, "threshold_a", -100.0),
        ({"weight": "0.5"}, "weight", 0.5),
        ({"weight": np.float32(0.5)}, "weight", 0.5),
        ({"pixel_perfect": "True"}, "pixel_perfect", True),
        ({"pixel_perfect": 1}, "pixel_perfect", True),
        ({"save_detected_map": False}, "save_map", False),
        ({"inpaint_crop_input_image": False}, "crop_to_mask", False),
        ({"advanced_weighting": [1, 0.5]}, "layer_weights", (1.0, 0.5)),
        ({"advanced_weighting": "[1, 0.5]"}, "layer_weights", (1.0, 0.5)),
        ({"advanced_weighting": None}, "layer_weights", None),
        ({"weight_schedule": [[0, 1], (0.5, "0.25")]}, "weight_schedule", WeightCurve(((0.0, 1.0), (0.5, 0.25)))),
        ({"weight_schedule": np.array([[0.0, 1.0]])}, "weight_schedule", WeightCurve(((0.0, 1.0),))),
        ({"weight_schedule": "[[0, 1], [0.5, 0.25]]"}, "weight_schedule", WeightCurve(((0.0, 1.0), (0.5, 0.25)))),
        ({"Weight Schedule": "0=1/0.5=0.25"}, "weight_schedule", WeightCurve(((0.0, 1.0), (0.5, 0.25)))),
        ({"hr_weight_schedule": "0:1, 0.5:0.25"}, "hr_weight_schedule", WeightCurve(((0.0, 1.0), (0.5, 0.25)))),
        ({"weight_schedule": []}, "weight_schedule", None),
        ({"weight_schedule": ""}, "weight_schedule", None),
        ({"weight_schedule": "[]"}, "weight_schedule", None),
        ({"uncond_weight": 0}, "uncond_weight", 0.0),
        ({"batch_weights": "1/0.5"}, "batch_weights", (1.0, 0.5)),
        ({"ip_weight_type": "ease in-out"}, "ip_weight_type", WeightType.ease_in_out),
        ({"weight_type": "linear"}, "ip_weight_type", WeightType.normal),
        ({"ip_weight_type": "style_precise"}, "ip_weight_type", WeightType.style_precise),
        ({"embeds_scaling": "K+mean(V) w/ C penalty"}, "ip_scaling", EmbedsScaling.k_mean_v_penalty),
        ({"combine_embeds": "norm average"}, "ip_combine", Combine.norm_average),
        ({"ip_layer_weights": "6:1, 3:-0.5"}, "ip_layer_weights", ((3, -0.5), (6, 1.0))),
        ({"ip_layer_weights": {"3": 0.5}}, "ip_layer_weights", ((3, 0.5),)),
        ({"ip_layer_weights": [[3, 0.5]]}, "ip_layer_weights", ((3, 0.5),)),
        ({"ip_layer_weights": ""}, "ip_layer_weights", ()),
        ({"pulid_mode": "PuLIDMode.STYLE"}, "pulid_mode", PulidMode.style),
        ({"pulid_mode": "neutral"}, "pulid_mode", PulidMode.neutral),
        ({"input_mode": "InputMode.SIMPLE"}, "input_mode", InputMode.simple),
    ],
)
def test_spellings(given: dict[str, object], field: str, value: object) -> None:
    assert getattr(unit(**given), field) == value


@pytest.mark.parametrize("field", SPELLINGS)
def test_every_field_reads_every_one_of_its_names(field: str) -> None:
    assert field in {item.name for item in dataclasses.fields(ControlNetUnit)}
    samples: dict[str, Any] = {
        "enabled": True,
        "preprocessor": "canny",
        "model": "m",
        "image": RGB,
        "mask": {"image": RGB, "mask": MASK},
        "resize_mode": 2,
        "control_mode": 2,
        "hr_option": 2,
        "layer_weights": [0.5],
        "embeddings": {"image_embeds": torch.ones(1, 1)},
        "uncond_image": RGB,
        "weight_schedule": [[0, 1], [1, 0.5]],
        "hr_weight_schedule": "0=0.5",
        "batch_weights": [0.5, 1],
        "ip_weight_type": "Style transfer",
        "ip_combine": "average",
        "ip_scaling": "K+V",
        "ip_uncond": 1,
        "ip_layer_weights": "3: 0.5",
        "pulid_mode": "Extremely style",
        "region_mask": MASK,
        "union_type": "Depth",
        "input_mode": "simple",
        "batch_dir": "folder",
        "resolution": 640,
        "pixel_perfect": True,
        "low_vram": True,
        "crop_to_mask": False,
        "save_map": False,
        "output_dir": "folder",
        "loopback": True,
        "images": [RGB],
    }
    value = samples.get(field, 0.25)
    extra = {"mask": {"image": RGB}, "images": {"input_mode": "merge"}}.get(field, {})
    read = [vars(parse_unit({"enabled": True, **extra, name: value}, 0))[field] for name in SPELLINGS[field]]
    default = vars(ControlNetUnit())[field]
    for result in read:
        assert np.array_equal(result, read[0])
        assert field == "input_mode" or not np.array_equal(result, default)


def test_image_by_its_old_name_beside_an_empty_new_one() -> None:
    read = unit(image="", input_image=png(RGB), mask_image=png(MASK))
    assert np.array_equal(read.image, RGB)
    assert np.array_equal(read.mask, MASK)


def test_blank_sketch_layer_is_no_second_mask() -> None:
    read = unit(image={"image": RGB, "mask": np.zeros_like(RGB)}, mask=MASK)
    assert np.array_equal(read.mask, MASK)


def test_region_mask_is_grey() -> None:
    read = unit(effective_region_mask=png(MASK))
    assert np.array_equal(read.region_mask, MASK)


def test_objects_of_other_classes() -> None:
    foreign = SimpleNamespace(
        enabled=True,
        module="canny",
        model="m",
        weight=1.5,
        image={"image": RGB, "mask": None},
        resize_mode="ResizeMode.OUTER_FIT",
        low_vram=False,
        processor_res=-1,
        ipadapter_input=None,
        something_of_its_own=object(),
    )
    read = parse_unit(foreign, 2)
    assert (read.index, read.enabled, read.preprocessor, read.weight) == (2, True, "canny", 1.5)
    assert read.resize_mode is ResizeMode.resize_and_fill
    assert np.array_equal(read.image, RGB)


def test_own_units_pass_through_with_their_new_index() -> None:
    own = ControlNetUnit(enabled=True, image=RGB, weight=0.3)
    read = parse_unit(own, 5)
    assert vars(read) == {**vars(own), "index": 5}


@pytest.mark.parametrize("given", [{"studi": {}}, {"foo": 1, "bar": 2}])
def test_what_has_no_field_of_a_unit_is_none(given: dict[str, object]) -> None:
    with pytest.raises(UnitError, match=f"neither a unit nor.*nothing but {next(iter(given))}"):
        parse_unit(given, 0)


@pytest.mark.parametrize(
    ("given", "enabled"),
    [
        ({}, False),
        ({"weight": 1.0}, False),
        ({"module": "none", "model": "None"}, False),
        ({"model": "canny"}, True),
        ({"module": "canny"}, True),
        ({"model": "canny", "enabled": None}, True),
        ({"image": RGB}, True),
        ({"input_image": {"image": RGB, "mask": None}}, True),
        ({"image": "", "mask": None}, False),
        ({"model": "canny", "enabled": False}, False),
        ({"model": "canny", "enabled": "false"}, False),
        ({"enabled": 1}, True),
    ],
)
def test_enabled(given: dict[str, object], enabled: bool) -> None:
    assert parse_unit(given, 0).enabled is enabled


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"weight": 2.01}, "weight", "from 0 to 2"),
        ({"weight": -0.1}, "weight", "from 0 to 2"),
        ({"weight": float("nan")}, "weight", "from 0 to 2"),
        ({"weight": float("inf")}, "weight", "from 0 to 2"),
        ({"weight": "strong"}, "weight", "not a number"),
        ({"weight": True}, "weight", "not a number"),
        ({"weight": [1]}, "weight", "not a number"),
        ({"control_weight": 3}, "control_weight", "from 0 to 2"),
        ({"guidance_start": 1.5}, "guidance_start", "from 0 to 1"),
        ({"guidance": -1}, "guidance", "from 0 to 1"),
        ({"guidance_start": 0.8, "guidance_end": 0.2}, "guidance_start", "start 0.8, end 0.2"),
        ({"processor_res": 512.5}, "processor_res", "whole number"),
        ({"threshold_a": float("nan")}, "threshold_a", "number"),
        ({"resize_mode": 4}, "resize_mode", "Crop and Resize"),
        ({"resize_mode": "stretch"}, "resize_mode", "Crop and Resize"),
        ({"resize_mode": True}, "resize_mode", "Crop and Resize"),
        ({"control_mode": -1}, "control_mode", "Balanced"),
        ({"control_mode": 0.5}, "control_mode", "Balanced"),
        ({"hr_option": {}}, "hr_option", "Both"),
        ({"pixel_perfect": "maybe"}, "pixel_perfect", "true or false"),
        ({"model": 5}, "model", "name"),
        ({"module": ["canny"]}, "module", "name"),
        ({"image": "/etc/passwd"}, "image", "by path"),
        ({"input_image": "http://x/a.png"}, "input_image", "web address"),
        ({"image": "AAAA"}, "image", "not a complete picture"),
        ({"mask": png(MASK)}, "mask", "no image"),
        ({"image": RGB, "mask_image": MASK[:4]}, "mask", "8x8 and 8x4"),
        ({"image": {"image": RGB, "mask": MASK}, "mask": MASK}, "mask", "two masks"),
        ({"effective_region_mask": 7}, "effective_region_mask", "not a picture"),
        ({"advanced_weighting": [1, "x"]}, "advanced_weighting", "number"),
        ({"advanced_weighting": 1.0}, "advanced_weighting", "list"),
        ({"weight_schedule": 0.5}, "weight_schedule", "not a list of points"),
        ({"weight_schedule": [0, 1]}, "weight_schedule", "not a list of points"),
        ({"weight_schedule": {"0": 1}}, "weight_schedule", "not a list of points"),
        ({"weight_schedule": [[0, 1, 2]]}, "weight_schedule", "3 numbers"),
        ({"weight_schedule": [[0.5, 1], [0.2, 1]]}, "weight_schedule", "0.2 after 0.5"),
        ({"weight_schedule": [[0, 2.5]]}, "weight_schedule", "2.5"),
        ({"weight_schedule": [[0, -0.5]]}, "weight_schedule", "-0.5"),
        ({"hr_weight_schedule": [[1.5, 1]]}, "hr_weight_schedule", "1.5"),
        ({"weight_schedule": [[0, float("nan")]]}, "weight_schedule", "nan"),
        ({"weight_schedule": [[0, None]]}, "weight_schedule", "not a number"),
        ({"weight_schedule": "0=1/0.5"}, "weight_schedule", "no weight"),
        ({"weight_schedule": [[0, 1]] * 201}, "weight_schedule", "too many"),
        ({"uncond_weight": -1}, "uncond_weight", "from 0 to 2"),
        ({"batch_weights": [1, 3]}, "batch_weights", "from 0 to 2"),
        ({"batch_weights": 1.0}, "batch_weights", "list"),
        ({"weight_type": "loud"}, "weight_type", "style transfer precise"),
        ({"ip_combine": {}}, "ip_combine", "choices"),
        ({"ip_style_boost": "much"}, "ip_style_boost", "number"),
        ({"ip_layer_weights": "3"}, "ip_layer_weights", "no number"),
        ({"ip_layer_weights": "3:1, 3:2"}, "ip_layer_weights", "given once"),
        ({"ip_layer_weights": "0.5:1"}, "ip_layer_weights", "whole number"),
        ({"ip_layer_weights": [[1, 2, 3]]}, "ip_layer_weights", "3 numbers"),
        ({"pulid_mode": "wild"}, "pulid_mode", "Fidelity"),
        ({"module": "canny", "preprocessor": "mlsd"}, "module and preprocessor", "different"),
        ({"ipadapter_input": ["gAJLAS4="]}, "ipadapter_input", "never unpickled"),
        ({"use_preview_as_input": True}, "use_preview_as_input", "not available"),
        ({"input_mode": "batch"}, "input_mode", "no pictures"),
        ({"input_mode": "merge", "images": ["x"]}, "images", "picture"),
        ({"weigth": 1.0}, "weigth", "did you mean weight"),
        ({"Thresholda": 1.0}, "Thresholda", "did you mean threshold_a"),
        ({"weight": 10**400}, "weight", "a whole number of about 401 digits"),
        ({"advanced_weighting": [1.0, -(10**400)]}, "advanced_weighting", "cannot be used"),
        ({"threshold_a": float("inf")}, "threshold_a", "cannot be used"),
        ({"model": "canny\ud800"}, "model", "halves of letters"),
        ({"enabled": "perhaps"}, "enabled", "true or false"),
    ],
)
def test_wrong_values_are_said(given: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(UnitError) as caught:
        unit(**given)
    assert caught.value.unit == 1
    assert caught.value.field == field
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"ControlNet unit 1, {field}: ")


@pytest.mark.parametrize(
    "given",
    [
        {"is_ui": True, "pulid_mode": "Fidelity", "batch_images": None, "output_dir": "", "loopback": False},
        {"ipadapter_input": None, "animatediff_batch": False, "batch_modifiers": [], "batch_image_files": []},
        {"image_fg": None, "mask_image_fg": None, "use_preview_as_input": False, "generated_image": None},
        {"batch_input_gallery": None, "batch_mask_gallery": None, "batch_image_dir": "", "multi_inputs_gallery": []},
        {"ipa_block_weight": "", "batch_keyframe_idx": None},
        {"foo": None},
    ],
)
def test_keys_of_other_extensions_are_taken(given: dict[str, object]) -> None:
    assert vars(unit(**given)) == vars(ControlNetUnit(index=1, enabled=True))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
KEYS = st.sampled_from([name for names in SPELLINGS.values() for name in names if name != "enable"] + ["foo"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, JUNK, max_size=6))
def test_disabled_units_are_never_an_error(fields: dict[str, object]) -> None:
    assert parse_unit({**fields, "enabled": False}, 0).enabled is False


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, JUNK, max_size=4))
def test_enabled_units_are_read_or_refused(fields: dict[str, object]) -> None:
    refused = None
    try:
        read = parse_unit({**fields, "enabled": True}, 3)
    except UnitError as error:
        refused, read = error, ControlNetUnit()
    assert refused is None or (refused.unit == 3 and refused.field)
    assert 0 <= read.weight <= 2
    assert 0 <= read.guidance_start <= read.guidance_end <= 1


@pytest.mark.parametrize(
    "key", ["foo", "frames", "client", "version", "comment", "x" * 500, "🎉", "bad\ud800key", "a\nb"]
)
def test_unknown_keys_are_passed_over_and_said(key: str) -> None:
    read = unit(module="canny", **{key: 1})
    (note,) = read.notes
    assert "no field" in note
    assert note.isprintable()
    assert note.encode()
    assert len(note) < 200
    assert vars(read) == {**vars(unit(module="canny")), "notes": read.notes}


@pytest.mark.parametrize("name", [name for names in SPELLINGS.values() for name in names])
def test_a_letter_too_few_or_two_exchanged_is_a_mistake(name: str) -> None:
    known = {other for names in SPELLINGS.values() for other in names}
    for wrong in (name[:2] + name[3:], name[:1] + name[2] + name[1] + name[3:]):
        if wrong in known or wrong == name:
            continue
        with pytest.raises(UnitError, match="did you mean"):
            unit(**{wrong: 1})


def test_misspelt_key_is_no_way_to_be_disabled() -> None:
    with pytest.raises(UnitError, match="did you mean module or model"):
        parse_unit({"modle": "canny"}, 0)
    assert not parse_unit({"modle": "canny", "enabled": False}, 0).enabled


@pytest.mark.parametrize("value", [None, 3, "canny", [1], object()])
def test_what_is_no_unit(value: object) -> None:
    assert not is_unit(value)
    with pytest.raises(UnitError, match="not a unit"):
        parse_unit(value, 0)
