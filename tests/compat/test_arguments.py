"""Our slice of a job's arguments as other extensions see it: unit objects, read back as they were given."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_controlnet.compat.arguments import ControlNetArgument, plain_arguments, show_units, unit_arguments
from lib_controlnet.compat.enums import ControlMode, InputMode, ResizeMode
from lib_controlnet.compat.unit import DEFAULTS, ControlNetUnit
from lib_controlnet.core.arguments import FIRST_UNIT, PANEL, SLOTS, options_from_args, units_from_args
from lib_controlnet.core.errors import HostError, UnitError
from lib_controlnet.core.panel_options import PromptMode

from .test_external_code import COUNT, widget_values

RGB = np.random.default_rng(3).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def page(*units: list[Any], caption: str = "") -> list[Any]:
    """What a page sends: free slots, the panel's own values, the widgets of each unit."""
    options = [PromptMode.typed.value, caption, "All ControlNet units for all images in a batch", False, ""]
    return [*[None] * SLOTS, *options, *(value for unit in units for value in unit)]


def three(**first: Any) -> list[Any]:
    return page(widget_values(**first), widget_values(), widget_values())


def units(arguments: list[Any]) -> list[Any]:
    return list(units_from_args(plain_arguments(arguments), COUNT))


def outcome(arguments: list[Any]) -> Any:
    """The first unit's fields, or what is said instead of it."""
    try:
        read = units(arguments)[0]
    except UnitError as error:
        return str(error)
    picture = None if read.image is None else read.image.tobytes()
    return {**vars(read), "image": picture}


def is_peers_unit(item: Any) -> bool:
    """As the peer tells a unit from anything else."""
    return set(vars(ControlNetUnit())) <= set(vars(item))


NOTHING = {
    "None": None,
    "0": 0,
    "0.0": 0.0,
    "numpy zero": np.zeros(1)[0],
    "False": False,
    "empty text": "",
    "empty list": [],
    "empty tuple": (),
    "empty array": np.zeros(0),
}


@pytest.mark.parametrize("name", NOTHING)
@pytest.mark.parametrize("length", [COUNT, SLOTS, FIRST_UNIT, len(three()), len(three()) + 7])
def test_places_filled_with_nothing_are_no_units(name: str, length: int) -> None:
    arguments = [NOTHING[name]] * length
    shown = unit_arguments(arguments)
    assert len(shown) == length
    assert all(is_peers_unit(item) and item.enabled is False and item.image is None for item in shown)
    for read in (arguments, shown):
        assert not any(unit.enabled for unit in units(read))
        assert options_from_args(plain_arguments(read)).caption == ""


def test_the_page_is_its_units_in_the_first_places() -> None:
    arguments = three(enabled=True, model="canny", image=Image.fromarray(RGB), resize_mode="Just Resize", weight=0.7)
    shown = unit_arguments(arguments)
    assert len(shown) == len(arguments)
    assert all(is_peers_unit(item) for item in shown)
    assert [item.enabled for item in shown] == [True] + [False] * (len(shown) - 1)
    first = shown[0]
    assert (first.model, first.weight, first.resize_mode) == ("canny", 0.7, ResizeMode.RESIZE)
    assert first.control_mode is ControlMode.BALANCED
    assert first.input_mode.name == "SIMPLE"
    assert first.batch_images.split("\n") == [""]
    assert np.array_equal(first.image["image"], RGB)
    assert not first.image["mask"].any()
    assert outcome(shown) == outcome(arguments)
    assert len(units(shown)) == COUNT


def test_the_panels_options_stay() -> None:
    arguments = page(widget_values(), caption="a cat")
    arguments[SLOTS] = PromptMode.default.value
    shown = unit_arguments(arguments)
    for read in (arguments, shown, copy.deepcopy(shown)):
        options = options_from_args(plain_arguments(read))
        assert (options.prompt_mode, options.caption) == (PromptMode.default, "a cat")
    assert PANEL[0] == "prompt_mode"


CHANGES = {
    "weight": ({"weight": 0.25}, lambda unit: unit.weight == 0.25),
    "module": ({"module": "canny"}, lambda unit: unit.preprocessor == "canny"),
    "resolution": ({"processor_res": 640}, lambda unit: unit.resolution == 640),
    "mode": ({"control_mode": ControlMode.CONTROL}, lambda unit: unit.control_mode.cond_only),
    "picture": ({"image": RGB + np.uint8(1)}, lambda unit: np.array_equal(unit.image, RGB + np.uint8(1))),
    "no picture": ({"image": None}, lambda unit: unit.image is None),
    "layers": ({"advanced_weighting": [0.5, 1.0]}, lambda unit: unit.layer_weights == (0.5, 1.0)),
    "off": ({"enabled": False}, lambda unit: not unit.enabled),
}
WAYS = {
    "of the page": lambda: three(enabled=True, model="m", image=Image.fromarray(RGB), preprocessor="none"),
    "of the API": lambda: [{"enabled": True, "model": "m", "control_weight": 1.0, "input_image": RGB}, {}, {}],
    "of the API in older words": lambda: [{"Enabled": "true", "model": "m", "preprocessor": "none", "image": RGB}],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", WAYS)
def test_what_others_change_takes_effect(way: str, change: str) -> None:
    shown = unit_arguments(WAYS[way]())
    assert units(shown)[0].enabled
    fields, holds = CHANGES[change]
    for name, value in fields.items():
        setattr(shown[0], name, value)
    assert holds(units(shown)[0])
    assert units(shown)[0].model == "m"


@pytest.mark.parametrize("way", WAYS)
def test_a_change_in_the_picture_itself_takes_effect(way: str) -> None:
    shown = unit_arguments(copy.deepcopy(WAYS[way]()))
    image = shown[0].image
    inner = image["image"] if isinstance(image, dict) else image
    inner[:] = 7
    assert (units(shown)[0].image == 7).all()


@pytest.mark.parametrize("place", [0, 2])
def test_an_empty_place_that_is_switched_on_is_a_unit(place: int) -> None:
    shown = unit_arguments([None] * 10)
    shown[place].enabled, shown[place].model, shown[place].image = True, "m", RGB
    read = {unit.index: unit for unit in units_from_args(plain_arguments(shown), COUNT)}
    assert sorted(item.index for item in read.values() if item.enabled) in ([0], [place])
    assert any(unit.enabled and unit.model == "m" for unit in read.values())


def test_a_place_beyond_the_configured_units_is_refused() -> None:
    shown = unit_arguments([None] * 10)
    shown[9].enabled = True
    with pytest.raises(UnitError, match="more units than configured"):
        units(shown)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))])
@pytest.mark.parametrize("way", ["of the API", "of the API in older words"])
def test_copies_are_units_still_and_do_not_share(way: str, copied: Any) -> None:
    shown = unit_arguments(WAYS[way]())
    twins = [copied(item) for item in shown]
    twins[0].enabled = False
    assert not units(twins)[0].enabled
    assert units(shown)[0].enabled
    assert all(is_peers_unit(twin) and "controlnet" in type(twin).__name__.lower() for twin in twins)


def test_made_anew_by_its_class_and_fields() -> None:
    """`type(unit)(**vars(unit))` and `ControlNetUnit(**vars(unit))`, as extensions copy units."""
    first = unit_arguments(WAYS["of the API"]())[0]
    for kind in (type(first), ControlNetUnit):
        twin = kind(**{**vars(first), "weight": 0.3})
        read = units([twin])[0]
        assert (read.enabled, read.model, read.weight) == (True, "m", 0.3)
    assert first.copy(update={"weight": 0.4}).weight == 0.4
    assert first.dict()["model"] == "m"


def test_lists_of_a_unit_are_its_own() -> None:
    unit_arguments([None])[0].batch_modifiers.append("x")
    ControlNetUnit().images.append("x")
    assert ControlNetUnit().batch_modifiers == ControlNetUnit().images == []
    assert DEFAULTS["images"] == []


WRONG = {"a number": 5, "a word": "canny", "a list": [1, 2], "an object": SimpleNamespace(x=1)}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_a_unit_is_still_refused(name: str) -> None:
    shown = unit_arguments([None, WRONG[name], None])
    assert all(is_peers_unit(item) and not item.enabled for item in shown)
    with pytest.raises(UnitError, match="this is not a unit"):
        units(shown)


def test_unknown_keys_and_wrong_panels_are_told_as_before() -> None:
    with pytest.raises(UnitError, match="wieght"):
        units(unit_arguments([{"enabled": True, "model": "m", "wieght": 1.0}]))
    with pytest.raises(HostError, match="reload the page"):
        units(unit_arguments(three(enabled=True)[:-1]))


class Job:
    def __init__(self, arguments: Any) -> None:
        self.script_args_value = arguments


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_a_jobs_slice_is_shown_and_the_rest_left_alone(kind: Any) -> None:
    script = SimpleNamespace(args_from=2, args_to=2 + len(three()))
    values = [0.0, 1.0, *[0.0] * len(three()), 2.0] if kind is np.array else ["a", 1, *three(enabled=True), "z"]
    p = Job(kind(values))
    show_units(p, script)
    assert len(p.script_args_value) == len(values)
    assert [p.script_args_value[place] for place in (0, 1, -1)] == [values[place] for place in (0, 1, -1)]
    own = p.script_args_value[2:-1]
    assert all(is_peers_unit(item) for item in own)
    again = show_units(p, script)
    assert all(one is other for one, other in zip(own, again, strict=True))


@pytest.mark.parametrize("arguments", [None, {}, (), [], ("a",)])
def test_a_job_without_our_arguments_is_left_alone(arguments: Any) -> None:
    p = Job(arguments)
    show_units(p, SimpleNamespace(args_from=2, args_to=9))
    assert p.script_args_value == arguments


FIELDS = {
    "weight": st.floats(0, 2),
    "module": st.sampled_from(["none", "canny"]),
    "guidance_start": st.floats(0, 0.5),
    "pixel_perfect": st.booleans(),
    "processor_res": st.integers(-1, 2048),
    "resize_mode": st.sampled_from([*ResizeMode, 0, 1, 2, "Just Resize"]),
    "input_mode": st.sampled_from(list(InputMode)),
    "low_vram": st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({}, optional=FIELDS), st.dictionaries(st.sampled_from(sorted(FIELDS)), st.none()))
def test_shown_and_read_back_is_what_was_given(fields: dict[str, Any], silent: dict[str, None]) -> None:
    request = {"enabled": True, "model": "m", "image": RGB, **silent, **fields}
    assert outcome(unit_arguments([request])) == outcome([request])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_change_reads_as_a_unit_made_with_it(data: st.DataObject) -> None:
    request = {"enabled": True, "model": "m", "image": RGB, **data.draw(st.fixed_dictionaries({}, optional=FIELDS))}
    changes = data.draw(st.fixed_dictionaries({}, optional=FIELDS))
    shown = unit_arguments([request])
    for name, value in changes.items():
        setattr(shown[0], name, value)
    assert outcome(shown) == outcome([{**request, **changes}])


def test_an_argument_is_not_a_unit_until_it_says_so() -> None:
    assert not ControlNetArgument.of(None).is_unit()
    assert not ControlNetArgument.of({"prompt_mode": "As typed"}).is_unit()
    assert ControlNetArgument.of({"enabled": False}, {}).is_unit()
