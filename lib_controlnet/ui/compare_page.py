"""The page "Compare": one picture through several preprocessors, side by side."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.control_types import ALL, NO_PREPROCESSOR
from ..core.errors import ControlNetError, UnitError
from ..core.images import read_picture
from ..core.modes import ResizeMode
from ..core.units import ControlNetUnit, configured_units
from ..engine.generation import Picture as Source
from ..engine.look import NO_JOB, look
from ..engine.services import PageServices
from .events import QUICK, shown_errors
from .gradio_compat import not_saved, picture_input, picture_output, small_button
from .preview import shown_map
from .sliders import HIDDEN, slider_options, slider_updates
from .unit_panel import preprocessor_labels

SLOTS = 4
FIRST = ("canny", "lineart_standard", "scribble_xdog", "tile_resample")
"""What the slots begin with, where it is there: they need no weights."""


@dataclass
class Slot:
    """One preprocessor, its settings and its map."""

    preprocessor: Any
    sliders: list[Any]
    map: Any
    note: Any

    def inputs(self) -> list[Any]:
        return [self.preprocessor, *self.sliders]


def build(services: PageServices) -> None:
    """Makes the page's widgets."""
    units = configured_units(services.setting)
    with gr.Row(elem_classes=["cnet-compare-head"]):
        image = picture_input("Picture", elem_id="controlnet_compare_image", height=260)
        with gr.Column():
            run = gr.Button("Compare", variant="primary", elem_id="controlnet_compare_run")
            stop = gr.Button("Stop", elem_id="controlnet_compare_stop")
            targets = [f"{tab}: unit {unit}" for tab in ("txt2img", "img2img") for unit in range(units)]
            not_saved(gr.Dropdown(targets, value=targets[0], label="Send maps to", elem_id="controlnet_compare_target"))
            gr.Button("Download all", elem_id="controlnet_compare_download")
    with gr.Row(elem_classes=["cnet-compare"]):
        slots = [_slot(services, number) for number in range(SLOTS)]

    def compare(progress: Any = gr.Progress(), *arguments: Any) -> list[Any]:  # noqa: B008 (gradio's way)
        picture, values = arguments[0], arguments[1:]
        width = len(values) // SLOTS
        chosen = [values[number * width : (number + 1) * width] for number in range(SLOTS)]
        results = [_result(services, picture, progress, number, *each) for number, each in enumerate(chosen)]
        return [part for result in results for part in result]

    inputs = [image, *(component for slot in slots for component in slot.inputs())]
    run.click(compare, inputs, [part for slot in slots for part in (slot.map, slot.note)])
    stop.click(services.preprocess.cancel, None, None, **QUICK)


def _slot(services: PageServices, number: int) -> Slot:
    labels = preprocessor_labels(services, ALL)
    first = FIRST[number] if FIRST[number] in services.annotators else NO_PREPROCESSOR  # type: ignore[operator]
    spec: Any = services.preprocess.entry(first).spec
    with gr.Column(min_width=220, elem_classes=["cnet-compare-slot"]):
        preprocessor = not_saved(
            gr.Dropdown(labels, value=spec.label, label="Preprocessor", elem_id=f"controlnet_compare_{number}")
        )
        shown = picture_output(f"Map {number + 1}", elem_id=f"controlnet_compare_map_{number}", height=260)
        note = gr.HTML("", elem_id=f"controlnet_compare_note_{number}")
        small_button(
            "Send to unit",
            "Make this map the unit's picture",
            elem_id=f"controlnet_compare_send_{number}",
            elem_classes=["cnet-compare-send"],
        )
        known = (spec.resolution, *spec.sliders[:2], None, None)[:3]
        sliders = [not_saved(gr.Slider(**slider_options(slider))) for slider in known]
    for slider, of in zip(sliders, known, strict=True):
        slider.value = HIDDEN if of is None else of.default
    preprocessor.input(
        shown_errors(lambda name: slider_updates(services.preprocess.entry(name).spec, False)),
        [preprocessor],
        sliders,
        **QUICK,
    )
    return Slot(preprocessor, sliders, shown, note)


def _result(services: PageServices, picture: Any, progress: Any, number: int, *chosen: Any) -> tuple[Any, str]:
    """The map of one slot and what went wrong with it; one that fails leaves the others theirs."""
    try:
        return _map(services, picture, progress, number, *chosen), ""
    except ControlNetError as error:
        return None, f'<p class="cnet-note cnet-bad" role="alert">{html.escape(str(error))}</p>'


def _map(
    services: PageServices,
    picture: Any,
    progress: Any,
    number: int,
    name: str,
    resolution: float,
    first: float,
    second: float,
) -> Any:
    """The map of one slot; None for one that has "none"."""
    read = read_picture(picture)
    if read is None:
        raise UnitError("there is no picture to compare", field="image", remedy="upload one on this page")
    if name == NO_PREPROCESSOR:
        return None
    spec = services.preprocess.entry(name).spec
    result = look(
        services,
        ControlNetUnit(preprocessor=name, resolution=int(resolution), threshold_a=first, threshold_b=second),
        Source(read.pixels, read.mask, ResizeMode.crop_and_resize),
        NO_JOB,
        lambda part: progress((number + part) / SLOTS, desc=spec.label),
    )
    return shown_map(result)
