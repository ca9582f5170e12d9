"""The layer-weight editor: a shape, the numbers, and a plot of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.errors import ControlNetError
from ..core.layer_shapes import OFF, SHAPES, shaped
from ..core.units import parse_unit
from .gradio_compat import not_saved

DEFAULT_OUTPUTS = 13
"""Residuals of SD 1.x and 2.x; SDXL's have 10."""


@dataclass
class LayerEditor:
    """`weights` is the argument of the script."""

    shape: Any
    weights: Any
    plot: Any


def build_editor(prefix: str) -> LayerEditor:
    """Makes the widgets at this place of the page."""
    with gr.Accordion("Layer weights", open=False, elem_id=f"{prefix}_controlnet_layer_weights_group"):
        shape = not_saved(
            gr.Dropdown([OFF, *SHAPES], value=OFF, label="Shape", elem_id=f"{prefix}_controlnet_layer_shape_dropdown")
        )
        weights = not_saved(
            gr.Textbox(
                "",
                label="Weights, from the first layer to the middle block (empty = off)",
                lines=1,
                max_lines=3,
                placeholder="0.1, 0.2, …",
                elem_id=f"{prefix}_controlnet_advanced_weighting",
            )
        )
        plot = gr.HTML(draw(""), elem_id=f"{prefix}_controlnet_layer_plot", elem_classes=["cnet-layer-plot"])
    return LayerEditor(shape, weights, plot)


def choose_shape(name: str, weight: float, outputs: int) -> tuple[str, str]:
    """Shape -> text of the weights, plot."""
    values = shaped(name, outputs, weight)
    text = "" if values is None else ", ".join(f"{value:g}" for value in values)
    return text, draw(text)


def draw(text: str) -> str:
    """The weights of a text as bars; what is wrong with it as words."""
    try:
        weights = parse_unit({"enabled": True, "layer_weights": text}, 0).layer_weights
    except ControlNetError as error:
        return f'<p class="cnet-note cnet-bad">{error.problem}: {error.found}</p>'
    if weights is None:
        return '<p class="cnet-note">Every layer has the weight of the unit, or the soft ramp of its control mode.</p>'
    top = max(1.0, *(abs(weight) for weight in weights))
    width = 100 / len(weights)
    bars = "".join(_bar(index, weight / top, weight, width, len(weights)) for index, weight in enumerate(weights))
    names = f"{len(weights)} layer weights: {', '.join(f'{weight:g}' for weight in weights)}"
    return (
        f'<svg viewBox="0 0 100 34" preserveAspectRatio="none" role="img" aria-label="{names}" class="cnet-bars">{bars}'
        '</svg><p class="cnet-note">encoder, shallow to deep, then the middle block</p>'
    )


def _bar(index: int, height: float, weight: float, width: float, count: int) -> str:
    high = max(abs(height) * 30, 0.4)
    kind = "cnet-bar-middle" if index == count - 1 else "cnet-bar"
    title = "middle block" if index == count - 1 else f"layer {index}"
    return (
        f'<rect class="{kind}" data-layer="{index}" x="{index * width + 0.4:.2f}" y="{32 - high:.2f}" '
        f'width="{width - 0.8:.2f}" height="{high:.2f}"><title>{title}: {weight:g}</title></rect>'
    )
