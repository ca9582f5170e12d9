"""Resets a unit to its defaults, and takes that back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from ..core.errors import ControlNetError
from ..core.modes import InputMode
from ..engine.services import PageServices
from .events import QUICK, fields_of
from .sliders import slider_updates
from .unit_panel import UnitWidgets
from .unit_pictures import SINGLE

PICTURES = ("image", "mask", "region_mask", "uncond_image")
_FILES = ("batch_images", "merge_images", "embedding_files")
_SLIDERS = ("resolution", "threshold_a", "threshold_b")
_EMPTY = {**dict.fromkeys((*PICTURES, *_FILES)), "batch_dir": "", "output_dir": "", "use_region": False}
"""What a unit without settings has in the widgets that no text of parameters names."""


def connect_reset(
    services: PageServices, unit: UnitWidgets, widgets: Any, defaults: Callable[[], list[Any]], outputs: Sequence[Any]
) -> None:
    """`defaults` gives the values of `outputs`, the widgets that a text of parameters sets; `widgets`: the buttons."""
    values, tabs = unit.values, unit.pictures.tabs
    emptied = [values[name] for name in _EMPTY]
    mode = [values["input_mode"], tabs]
    shown = [widgets.undo, widgets.before, widgets.answer]

    def reset(*arguments: Any) -> list[Any]:
        first = [InputMode.simple.value, gr.update(selected=SINGLE)]
        kept = [gr.update(visible=True), _kept(arguments), ""]
        return [*defaults(), *_EMPTY.values(), *first, unit.notes.text.value, *kept]

    unit.problem.on(
        widgets.reset.click, reset, unit.arguments(), [*outputs, *emptied, *mode, unit.notes.text, *shown], **QUICK
    )
    unit.problem.on(
        widgets.undo.click,
        lambda before: [*_restored(services, before), gr.update(visible=False), None],
        [widgets.before],
        [*unit.arguments(), widgets.undo, widgets.before],
        **QUICK,
    )


def _kept(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """The values of a unit's widgets; of uploaded files the names, which a page can be given again."""
    fields = fields_of(tuple(arguments))
    for name in _FILES:
        fields[name] = [str(getattr(file, "name", file)) for file in fields[name] or ()] or None
    return tuple(fields.values())


def _restored(services: PageServices, before: Sequence[Any]) -> list[Any]:
    """Updates of a unit's widgets; the sliders with the ranges of their preprocessor."""
    fields = fields_of(tuple(before))
    updates = {name: gr.update(value=value) for name, value in fields.items()}
    try:
        spec = services.preprocess.entry(fields["preprocessor"]).spec
    except ControlNetError:
        return list(updates.values())
    values = tuple(fields[name] for name in _SLIDERS)
    sliders = slider_updates(spec, bool(fields["pixel_perfect"]), values)
    return list({**updates, **dict(zip(_SLIDERS, sliders, strict=True))}.values())
