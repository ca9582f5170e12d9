"""Generation parameters pasted back into the panel, each unit to its own index."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from ..core.control_types import ALL, NO_MODEL, models_of
from ..core.errors import ControlNetError
from ..core.infotext import FIELDS, read_units, unit_key
from ..core.panel_options import BATCH_OPTION_KEY, PROMPT_MODE_KEY, STYLE_ALIGN_KEY, BatchOption, PromptMode
from ..core.units import IMAGE_PROMPT, ControlNetUnit
from ..engine.services import PageServices
from . import curves, layers
from .sliders import slider_updates
from .unit_panel import UnitWidgets, preprocessor_labels

log = logging.getLogger("ControlNet")

Params = Mapping[str, Any]
Target = Callable[[Params], Any]

_SLIDERS = ("resolution", "threshold_a", "threshold_b")
_PLAIN = (
    "weight",
    "guidance_start",
    "guidance_end",
    "pixel_perfect",
    "crop_to_mask",
    "low_vram",
    "save_map",
    "loopback",
    "uncond_weight",
    "reuse_control",
)
_NUMBERS = ("layer_weights", "batch_weights")
_CURVES = ("weight_schedule", "hr_weight_schedule")
_IMAGE_PROMPT = tuple(name for name in IMAGE_PROMPT if name != "ip_layer_weights")
_CHOICES = ("control_mode", "resize_mode", "hr_option", "union_type")


def names(count: int) -> list[str]:
    """What the host lists as this script's parameters: `ControlNet 0` and the peers' `ControlNet 0 Module`, …"""
    keys = [unit_key(index) for index in range(count)]
    return [PROMPT_MODE_KEY, BATCH_OPTION_KEY, *keys, *(f"{key} {field}" for key in keys for field in FIELDS)]


def fields(services: PageServices, index: int, unit: UnitWidgets) -> Iterator[tuple[Any, Target]]:
    """(component, parameters -> value, update or None for "leave it") of every pasted widget of a unit.

    A text without any ControlNet unit leaves the panel as it is; one with some disables the units it does not name.
    """
    values = unit.values
    yield values["enabled"], lambda params: _enabled(params, index)
    yield unit.control_type, _when(index, lambda _unit: ALL)
    yield values["preprocessor"], _when(index, lambda read: _preprocessor(services, read))
    yield values["model"], _when(index, lambda read: _model(services, read))
    for position, name in enumerate(_SLIDERS):
        yield values[name], _when(index, _slider(services, position))
    for name in _PLAIN:
        yield values[name], _when(index, _attribute(name))
    for name in _CHOICES:
        yield values[name], _when(index, _choice(name))
    for name in _IMAGE_PROMPT:
        yield values[name], _when(index, _word(name))
    yield values["ip_layer_weights"], _when(index, _places)
    for name in _NUMBERS:
        yield values[name], _when(index, _numbers(name))
    for name in _CURVES:
        yield values[name], _when(index, _curve(name))
    yield values["use_preview"], _when(index, lambda _unit: False)
    # what was chosen or made for the settings before
    yield unit.layers.shape, _when(index, lambda _unit: layers.OFF)
    yield unit.schedule.shape, _when(index, lambda _unit: curves.OFF)
    yield values["preview"], _when(index, lambda _unit: gr.update(value=None))
    yield unit.pictures.pose, _when(index, lambda _unit: "")
    yield unit.pictures.made, _when(index, lambda _unit: "")


def option_fields(options: Mapping[str, Any]) -> Iterator[tuple[Any, Target]]:
    """(component, parameters -> value) of what holds for all units."""
    for name, key, default in (
        ("prompt_mode", PROMPT_MODE_KEY, PromptMode.typed.value),
        ("batch_option", BATCH_OPTION_KEY, BatchOption.all_units.value),
    ):
        yield options[name], _option(key, default)
    yield options["caption"], _caption
    align = _option(STYLE_ALIGN_KEY, "False")
    yield options["style_align"], lambda params: None if (said := align(params)) is None else str(said) == "True"


def _option(key: str, default: str) -> Target:
    """The parameter where the text has one, its default where the text has units without it."""

    def target(params: Params) -> Any:
        return params.get(key, default if read_units(params)[0] else None)

    return target


def _caption(params: Params) -> str | None:
    """The caption of an automatic mode is the prompt of its picture: with it the same words are used again."""
    mode = params.get(PROMPT_MODE_KEY)
    return params.get("Prompt") if mode in (PromptMode.source.value, PromptMode.result.value) else None


def _numbers(name: str) -> Callable[[ControlNetUnit], str]:
    return lambda unit: ", ".join(f"{number:g}" for number in getattr(unit, name) or ())


def _word(name: str) -> Callable[[ControlNetUnit], Any]:
    return lambda unit: getattr(getattr(unit, name), "value", getattr(unit, name))


def _places(unit: ControlNetUnit) -> str:
    return ", ".join(f"{place}: {factor:g}" for place, factor in unit.ip_layer_weights)


def _curve(name: str) -> Callable[[ControlNetUnit], str]:
    return lambda unit: str(getattr(unit, name) or "")


def _enabled(params: Params, index: int) -> bool | None:
    units, problems = read_units(params)
    for problem in problems:
        if problem.unit == index:
            log.warning("pasted parameters: %s", problem)
    return index in units if units else None


def _when(index: int, value: Callable[[ControlNetUnit], Any]) -> Target:
    def target(params: Params) -> Any:
        unit = read_units(params)[0].get(index)
        return None if unit is None else value(unit)

    return target


def _attribute(name: str) -> Callable[[ControlNetUnit], Any]:
    return lambda unit: getattr(unit, name)


def _choice(name: str) -> Callable[[ControlNetUnit], str]:
    return lambda unit: str(getattr(unit, name).value)


def _preprocessor(services: PageServices, unit: ControlNetUnit) -> Any:
    spec = _spec(services, unit)
    if spec is None:
        log.warning('pasted parameters: the preprocessor "%s" is not available here', unit.preprocessor)
        return None
    return gr.update(choices=preprocessor_labels(services, ALL), value=spec.label)


def _model(services: PageServices, unit: ControlNetUnit) -> Any:
    """The model of that name here; a name that is not found is shown as it is, and refused when it is used."""
    chosen = unit.model
    if chosen != NO_MODEL:
        try:
            chosen = services.library.find(chosen).name
        except ControlNetError as error:
            log.warning("pasted parameters: %s", error)
    choices = models_of(ALL, services.library.names())
    return gr.update(choices=choices if chosen in choices else [*choices, chosen], value=chosen, visible=True)


def _slider(services: PageServices, position: int) -> Callable[[ControlNetUnit], Any]:
    def update(unit: ControlNetUnit) -> Any:
        spec = _spec(services, unit)
        if spec is None:
            return None
        values = (unit.resolution, unit.threshold_a, unit.threshold_b)
        return slider_updates(spec, unit.pixel_perfect, values)[position]

    return update


def _spec(services: PageServices, unit: ControlNetUnit) -> Any | None:
    try:
        return services.preprocess.entry(unit.preprocessor).spec
    except ControlNetError:
        return None
