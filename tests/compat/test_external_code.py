"""`external_code` as other extensions use it, over a host's runner with scripts around ours."""

from __future__ import annotations

import base64
import copy
import io
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_controlnet.compat.modules import makers
from lib_controlnet.core.arguments import FIELDS, FIRST_UNIT, units_from_args
from lib_controlnet.core.modes import ControlMode, ResizeMode
from lib_controlnet.core.units import parse_unit
from tests.surface_services import make_services

COUNT = 3
WIDTH = FIRST_UNIT + COUNT * len(FIELDS)


@dataclass
class Script:
    name: str
    args_from: int
    args_to: int

    def title(self) -> str:
        return self.name

    @property
    def sd_controlnet(self) -> bool:
        return self.name == "ControlNet"


@dataclass
class Runner:
    alwayson_scripts: list[Script]


@dataclass
class Processing:
    """The host's object: `script_args` is a property over `script_args_value` there."""

    scripts: Runner
    script_args_value: tuple[Any, ...]
    seen: list[Any] = field(default_factory=list)

    @property
    def script_args(self) -> tuple[Any, ...]:
        return self.script_args_value

    @script_args.setter
    def script_args(self, value: tuple[Any, ...]) -> None:
        self.script_args_value = value


def widget_values(**fields: Any) -> list[Any]:
    defaults: dict[str, Any] = {
        "enabled": False,
        "own_image": True,
        "preprocessor": "none",
        "model": "None",
        "weight": 1.0,
        "resize_mode": "Crop and Resize",
        "control_mode": "Balanced",
        "hr_option": "Both",
    }
    return [{**defaults, **fields}.get(name) for name in FIELDS]


@pytest.fixture
def runner() -> Runner:
    return Runner([Script("Before", 1, 3), Script("ControlNet", 3, 3 + WIDTH), Script("After", 3 + WIDTH, 5 + WIDTH)])


@pytest.fixture
def p(runner: Runner) -> Processing:
    widgets = [*widget_values(enabled=True, model="canny", weight=0.7), *widget_values(), *widget_values()]
    return Processing(runner, (0, "b1", "b2", *[None] * FIRST_UNIT, *widgets, "a1", "a2"))


@pytest.fixture
def code(tmp_path: Path) -> ModuleType:
    module = ModuleType("external_code")
    makers(make_services(tmp_path), lambda: COUNT, lambda: None)["external_code"](module)
    return module


def own_arguments(p: Processing) -> tuple[Any, ...]:
    script = p.scripts.alwayson_scripts[1]
    return p.script_args[script.args_from : script.args_to]


PEERS_NAMES = """
get_api_version ControlNetUnit ControlMode ResizeMode BatchOption resize_mode_from_value visualize_inpaint_mask
pixel_perfect_resolution to_base64_nparray get_all_units_in_processing get_all_units get_all_units_from
get_single_unit_from get_max_models_num to_processing_unit update_cn_script_in_processing update_cn_script
update_cn_script_in_place get_models get_modules get_modules_detail find_cn_script is_cn_script
"""


@pytest.mark.parametrize("name", PEERS_NAMES.split())
def test_every_name_of_the_interface_is_there(code: ModuleType, name: str) -> None:
    assert callable(getattr(code, name))


def test_numbers_of_the_interface(code: ModuleType) -> None:
    assert code.get_api_version() == 3
    assert code.get_max_models_num() == COUNT


def test_units_of_the_widgets(code: ModuleType, p: Processing) -> None:
    units = code.get_all_units(p.scripts, p.script_args)
    assert [(unit.enabled, unit.model, unit.weight) for unit in units] == [
        (True, "canny", 0.7),
        (False, "None", 1.0),
        (False, "None", 1.0),
    ]


def test_units_changed_in_place_take_effect(code: ModuleType, p: Processing) -> None:
    units = code.get_all_units_in_processing(p)
    units[0].weight = 0.25
    units[1].enabled = True
    units[1].image = np.zeros((8, 8, 3), np.uint8)
    read = units_from_args(own_arguments(p), COUNT)
    assert [(unit.enabled, unit.weight) for unit in read] == [(True, 0.25), (True, 1.0), (False, 1.0)]
    assert read[1].image is not None
    assert code.get_all_units_in_processing(p)[0] is units[0]


def test_picture_of_the_widgets_is_as_a_sketch(code: ModuleType, runner: Runner) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    mask = (rgb[..., 0] > 127) * np.uint8(255)
    masked = widget_values(enabled=True, image=Image.fromarray(rgb), mask=Image.fromarray(mask))
    plain = widget_values(enabled=True, image=Image.fromarray(rgb))
    first, second = code.get_all_units(runner, [0, 1, 2, *[None] * FIRST_UNIT, *masked, *plain])
    assert np.array_equal(first.image["image"], rgb)
    assert np.array_equal(first.image["mask"][..., 0], mask)
    assert not second.image["mask"].any()
    assert np.array_equal(parse_unit(first, 0).mask, mask)


def test_one_own_unit_instead_of_the_users(code: ModuleType, p: Processing, runner: Runner) -> None:
    """What ADetailer-like tools do."""
    before = copy.deepcopy(runner)
    code.update_cn_script_in_processing(
        p, [code.ControlNetUnit(model="tile", weight=0.5)], is_img2img=True, is_ui=False
    )
    read = units_from_args(own_arguments(p), COUNT)
    assert [(unit.enabled, unit.model) for unit in read] == [(True, "tile"), (False, "None"), (False, "None")]
    assert runner == before
    assert p.script_args[:3] == (0, "b1", "b2")
    assert p.script_args[-2:] == ("a1", "a2")
    assert isinstance(p.script_args, tuple)


def test_no_units_means_none_enabled(code: ModuleType, p: Processing) -> None:
    code.update_cn_script_in_processing(p, [])
    assert [unit.enabled for unit in units_from_args(own_arguments(p), COUNT)] == [False] * COUNT


def test_fewer_units_than_before_leave_nothing_behind(code: ModuleType, p: Processing) -> None:
    many = [code.ControlNetUnit(model=name) for name in "abcde"]
    code.update_cn_script_in_processing(p, many)
    code.update_cn_script_in_processing(p, many[:1])
    assert [unit.enabled for unit in units_from_args(own_arguments(p), COUNT)] == [True, False, False]


def test_more_units_than_arguments_move_the_scripts_after(code: ModuleType) -> None:
    """A list as the peers have it: one argument a unit."""
    runner = Runner([Script("ControlNet", 1, 3), Script("After", 3, 4), Script("Before", 0, 1)])
    args = ["b", {}, {}, "a"]
    code.update_cn_script_in_place(runner, args, [{"model": str(i)} for i in range(COUNT + 1)])
    ours, after, before = runner.alwayson_scripts
    assert (ours.args_from, ours.args_to) == (1, 1 + COUNT + 1)
    assert args[after.args_from : after.args_to] == ["a"]
    assert args[before.args_from : before.args_to] == ["b"]
    assert [unit.model for unit in code.get_all_units(runner, args)] == ["0", "1", "2", "3"]


def test_arguments_that_are_no_list_come_back(code: ModuleType, runner: Runner) -> None:
    args = {"enabled": True}
    assert code.update_cn_script(Runner([Script("ControlNet", 1, 3)]), args, []) is args


@pytest.mark.parametrize("scripts", [[], [Script("Before", 0, 1)], [Script("ControlNet", 5, 9)]])
def test_without_our_script_nothing_happens(code: ModuleType, scripts: list[Script]) -> None:
    args = [1, 2, 3]
    assert code.update_cn_script(Runner(scripts), args, []) is args
    assert code.get_all_units(Runner(scripts), args) == []


def test_single_unit(code: ModuleType, p: Processing) -> None:
    args = own_arguments(p)
    assert code.get_single_unit_from(args).model == "canny"
    assert code.get_single_unit_from(args, 2).model == "None"
    assert code.get_single_unit_from(args, 3) is None
    assert [unit.model for unit in code.get_all_units_from([{"model": "x"}, None])] == ["x"]


# -- units ---------------------------------------------------------------------------------------------------------


def test_unit_says_what_it_was_given(code: ModuleType) -> None:
    made = code.ControlNetUnit(
        module="canny",
        model="canny",
        guidance=0.5,
        lowvram=True,
        input_image="",
        resize_mode=code.ResizeMode.OUTER_FIT,
        control_mode=code.ControlMode.CONTROL,
    )
    read = parse_unit(made, 0)
    assert (read.enabled, read.preprocessor, read.guidance_end, read.low_vram) == (True, "canny", 0.5, True)
    assert (read.resize_mode, read.control_mode) == (ResizeMode.resize_and_fill, ControlMode.control)


def test_new_unit_is_the_default_unit(code: ModuleType) -> None:
    assert vars(parse_unit(code.ControlNetUnit(), 0)) == vars(parse_unit({}, 0))
    assert vars(parse_unit(code.ControlNetUnit(enabled=True), 0)) == vars(parse_unit({"enabled": True}, 0))


def test_unknown_and_doubled_fields_are_refused(code: ModuleType) -> None:
    with pytest.raises(TypeError, match="weigth"):
        code.ControlNetUnit(weigth=1.0)
    with pytest.raises(TypeError, match="two names"):
        code.ControlNetUnit(guidance=1.0, guidance_end=0.5)
    code.ControlNetUnit(is_ui=False, ipadapter_input=None)
    kept = code.ControlNetUnit(model="m", flux_capacitor=3)
    assert kept.flux_capacitor == 3
    assert parse_unit(kept, 0).model == "m"


def test_units_compare_by_value(code: ModuleType) -> None:
    image = np.ones((4, 4, 3), np.uint8)
    first, second = (code.ControlNetUnit(model="m", image=image.copy()) for _ in range(2))
    assert first == second
    assert copy.copy(first) == first
    second.image[0] = 0
    assert first != second
    assert first != "unit"
    assert "model='m'" in repr(first)


# -- functions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "member"), [(0, "RESIZE"), ("Inner Fit (Scale to Fit)", "INNER_FIT"), ("Resize and Fill", "OUTER_FIT")]
)
def test_resize_mode_from_value(code: ModuleType, value: object, member: str) -> None:
    found = code.resize_mode_from_value(value)
    assert found.name == member
    assert code.resize_mode_from_value(found) is found
    assert found.int_value() == ["RESIZE", "INNER_FIT", "OUTER_FIT"].index(member)


def test_pixel_perfect_resolution_of_the_peers_test(code: ModuleType) -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    assert code.pixel_perfect_resolution(image, 50, 100, code.ResizeMode.OUTER_FIT) == 50
    assert code.pixel_perfect_resolution(image, target_H=50, target_W=100, resize_mode=code.ResizeMode.INNER_FIT) == 100


def test_visualize_inpaint_mask(code: ModuleType) -> None:
    rgba = np.full((2, 2, 4), 255, np.uint8)
    rgba[0, :, 3] = 0
    shown = code.visualize_inpaint_mask(rgba)
    assert shown[..., 3].tolist() == [[255, 255], [128, 128]]
    assert rgba[1, 1, 3] == 255
    plain = np.zeros((2, 2, 3), np.uint8)
    assert code.visualize_inpaint_mask(plain) is plain


def test_base64(code: ModuleType) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    assert np.array_equal(code.to_base64_nparray(base64.b64encode(buffer.getvalue()).decode()), rgb)


def test_lists(code: ModuleType, tmp_path: Path) -> None:
    models = code.get_models()
    assert models[0] == "None"
    assert len(models) == 4
    (tmp_path / "new.safetensors").write_bytes((tmp_path / "own_model.safetensors").read_bytes())
    assert len(code.get_models()) == 4
    assert len(code.get_models(update=True)) == 5
    assert code.get_modules()[:2] == ["none", "canny"]
    assert "inpaint_global_harmonious" in code.get_modules(alias_names=True)
    assert code.get_modules_detail()["canny"]["sliders"][1]["name"] == "Low Threshold"


# -- any runner ------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    widths=st.tuples(st.integers(0, 4), st.integers(0, 40), st.integers(0, 4)),
    places=st.permutations(range(3)),
    count=st.integers(0, 12),
    kind=st.sampled_from([list, tuple]),
    filling=st.sampled_from([None, 0, 0.0, False, "", {"model": "old"}]),
    short=st.integers(0, 3),
)
def test_nobody_elses_arguments_move(
    code: ModuleType, widths: Any, places: Any, count: int, kind: Any, filling: Any, short: int
) -> None:
    """Whatever lies around ours, however many units come, and however our places were filled."""
    scripts: list[Script] = []
    args: list[Any] = ["first"]
    for place in places:
        name = ("Before", "ControlNet", "After")[place]
        scripts.append(Script(name, len(args), len(args) + widths[place]))
        args += [filling] * widths[place] if place == 1 else [f"{name}{number}" for number in range(widths[place])]
    last = scripts[-1].name == "ControlNet"
    args = args[: len(args) - min(short, widths[1])] if last else args
    runner = Runner(scripts)
    units = [code.ControlNetUnit(model=f"m{number}") for number in range(count)]
    new = code.update_cn_script(runner, kind(args), units)
    assert type(new) is kind
    for script in scripts:
        own = new[script.args_from : script.args_to]
        if script.name != "ControlNet":
            assert list(own) == [
                f"{script.name}{number}" for number in range(widths[(script.name == "After" and 2) or 0])
            ]
    own = code.get_all_units(runner, new)
    assert [unit.model for unit in own if unit.enabled] == [unit.model for unit in units]
    assert len(own) >= COUNT
    ours = next(script for script in scripts if script.name == "ControlNet")
    assert all(hasattr(item, "enabled") for item in new[ours.args_from : ours.args_to])
