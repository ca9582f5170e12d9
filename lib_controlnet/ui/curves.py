"""The editor of a unit's weight over the steps: points as text, and a plot in which the page's script moves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.errors import ControlNetError
from ..core.schedule import WeightCurve
from ..core.units import parse_unit
from .gradio_compat import not_saved

OFF = "Off: one weight for all steps"
SHAPES: Mapping[str, WeightCurve] = {
    "Fade out": WeightCurve(((0.0, 1.0), (1.0, 0.0))),
    "Fade in": WeightCurve(((0.0, 0.0), (1.0, 1.0))),
    "Strong in the middle": WeightCurve(((0.0, 0.0), (0.5, 1.0), (1.0, 0.0))),
    "Weak in the middle": WeightCurve(((0.0, 1.0), (0.5, 0.2), (1.0, 1.0))),
    "First half": WeightCurve(((0.0, 1.0), (0.5, 1.0), (0.5, 0.0))),
    "Second half": WeightCurve(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0))),
}
"""For a weight of 1."""

LEFT, TOP, WIDTH, HEIGHT = 14, 6, 276, 80
"""Of the plot, in which progress 0..1 and weight 0..2 lie; javascript/controlnet/curve.mjs has the same."""
HIGHEST = 2.0


@dataclass
class Curve:
    """One curve: `text` is the argument of the script."""

    text: Any
    plot: Any


@dataclass
class ScheduleEditor:
    """The curve of the base pass with its shapes, and that of the hires pass within `hires_part`."""

    shape: Any
    base: Curve
    hires: Curve
    hires_part: Any


def build_schedule(values: dict[str, Any], prefix: str, is_img2img: bool) -> ScheduleEditor:
    """Makes the widgets at this place of the page, the script's arguments among them into `values`."""
    with gr.Accordion("Weight over the steps", open=False, elem_id=f"{prefix}_controlnet_weight_schedule_group"):
        shape = not_saved(
            gr.Dropdown(
                [OFF, *SHAPES], value=OFF, label="Shape", elem_id=f"{prefix}_controlnet_schedule_shape_dropdown"
            )
        )
        base = _curve(prefix, "weight_schedule", "Points, progress=weight (empty = off)")
        with gr.Column(visible=not is_img2img) as hires_part:
            hires = _curve(prefix, "hr_weight_schedule", "Points of the hires pass (empty = the same curve)")
        with gr.Row(elem_classes=["controlnet_row"]):
            values["uncond_weight"] = gr.Slider(
                label="Weight for the negative prompt, times",
                minimum=0.0,
                maximum=2.0,
                step=0.05,
                value=1.0,
                elem_id=f"{prefix}_controlnet_uncond_weight_slider",
                elem_classes=["cnet-setting"],
            )
            values["batch_weights"] = not_saved(
                gr.Textbox(
                    "",
                    label="Weight of each picture of a batch, times (empty = 1)",
                    placeholder="1, 0.5, …",
                    elem_id=f"{prefix}_controlnet_batch_weighting",
                )
            )
        values["reuse_control"] = gr.Slider(
            label="Reuse control while it changes by less than (0: never, -1: as in the settings)",
            minimum=-1.0,
            maximum=1.0,
            step=0.05,
            value=-1.0,
            elem_id=f"{prefix}_controlnet_reuse_control_slider",
            elem_classes=["cnet-setting"],
        )
    values["weight_schedule"], values["hr_weight_schedule"] = base.text, hires.text
    return ScheduleEditor(shape, base, hires, hires_part)


def _curve(prefix: str, name: str, label: str) -> Curve:
    text = not_saved(
        gr.Textbox(
            "", label=label, lines=1, max_lines=3, placeholder="0=1/0.5=0.3/1=0", elem_id=f"{prefix}_controlnet_{name}"
        )
    )
    plot = gr.HTML(draw_curve(""), elem_id=f"{prefix}_controlnet_{name}_plot", elem_classes=["cnet-curve-plot"])
    return Curve(text, plot)


def choose_curve(name: str, weight: float) -> tuple[str, str]:
    """Shape -> text of the points, plot."""
    curve = SHAPES.get(name)
    text = "" if curve is None else str(curve.changed(lambda part: min(part * weight, HIGHEST)))
    return text, draw_curve(text)


def draw_curve(text: str) -> str:
    """The curve of a text as a plot; what is wrong with it as words."""
    try:
        curve = parse_unit({"enabled": True, "weight_schedule": text}, 0).weight_schedule
    except ControlNetError as error:
        found = "" if error.found is None else f": {error.found}"
        return f'<p class="cnet-note cnet-bad">{error.problem}{found}</p>'
    told = "no curve: the unit's weight counts" if curve is None else f"weight over the steps: {curve}"
    lines = "".join(
        f'<line class="cnet-curve-grid" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{_y(weight)}" y2="{_y(weight)}"/>'
        f'<text class="cnet-curve-mark" x="2" y="{_y(weight) + 2.5}">{weight}</text>'
        for weight in (0, 1, 2)
    )
    return (
        f'<svg viewBox="0 0 300 96" role="group" aria-label="{told}" class="cnet-curve">{lines}'
        f'<text class="cnet-curve-mark" x="{LEFT}" y="94">first step</text>'
        f'<text class="cnet-curve-mark" x="{LEFT + WIDTH}" y="94" text-anchor="end">last step</text>{_drawn(curve)}'
        '</svg><p class="cnet-note">click: new point · drag: move it · double click or Delete: remove it</p>'
    )


def _drawn(curve: WeightCurve | None) -> str:
    if curve is None:
        return f'<polyline class="cnet-curve-off" points="{LEFT},{_y(1)} {LEFT + WIDTH},{_y(1)}"/>'
    ends = [(0.0, curve.points[0][1]), *curve.points, (1.0, curve.points[-1][1])]
    line = " ".join(f"{_x(progress):g},{_y(weight):g}" for progress, weight in ends)
    dots = "".join(
        f'<circle class="cnet-curve-point" data-point="{index}" tabindex="0" role="button" r="4" '
        f'aria-label="progress {progress:g}, weight {weight:g}" cx="{_x(progress):g}" cy="{_y(weight):g}"/>'
        for index, (progress, weight) in enumerate(curve.points)
    )
    return f'<polyline class="cnet-curve-line" points="{line}"/>{dots}'


def _x(progress: float) -> float:
    return LEFT + WIDTH * progress


def _y(weight: float) -> float:
    return TOP + HEIGHT * (1 - weight / HIGHEST)
