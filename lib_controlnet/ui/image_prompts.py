"""What the panel offers where a unit's picture acts as a prompt: IP-Adapters, InstantID's, PuLID."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.embeddings import PULID
from ..core.errors import ControlNetError
from ..core.image_prompt import Combine, EmbedsScaling, Slots, Uncond, WeightType, factors, swapped
from ..core.modes import PulidMode
from ..core.units import IMAGE_PROMPT, parse_unit
from ..engine.facts import Facts
from .gradio_compat import files_input, not_saved, picture_input, small_button

_SLOTS = {16: Slots(6, 1, 9), 11: Slots(4, 1, 6)}
"""By the number of layer weights that a file takes: SD 1.x and 2.x, SDXL."""
_TOP, _BOTTOM = 30, 32


@dataclass
class ImagePromptEditor:
    """`part` is shown where the model takes what is in it; `pulid` where it is PuLID's.

    `write` makes a file of what the preprocessor finds, which `written` gives.
    """

    part: Any
    plot: Any
    pulid: Any
    write: Any
    written: Any


def build_image_prompt(values: dict[str, Any], prefix: str) -> ImagePromptEditor:
    """Makes the widgets at this place of the page, which are the script's arguments, into `values`."""

    def choice(name: str, label: str, kind: Any) -> None:
        words = [member.value for member in kind]
        elem_id = f"{prefix}_controlnet_{name}_dropdown"
        values[name] = not_saved(gr.Dropdown(words, value=words[0], label=label, elem_id=elem_id))

    def number(name: str, label: str, value: float, low: float, high: float) -> None:
        elem_id = f"{prefix}_controlnet_{name}_slider"
        values[name] = not_saved(
            gr.Slider(label=label, minimum=low, maximum=high, step=0.05, value=value, elem_id=elem_id)
        )

    with gr.Accordion(
        "Picture as a prompt", open=True, visible=False, elem_id=f"{prefix}_controlnet_image_prompt_group"
    ) as part:
        choice("ip_weight_type", "Weight Type", WeightType)
        plot = gr.HTML(
            "", elem_id=f"{prefix}_controlnet_ip_weight_plot", elem_classes=["cnet-layer-plot", "cnet-prompt-plot"]
        )
        with gr.Row(elem_classes=["controlnet_row"]):
            number("ip_style_boost", "Style boost (0: the weight)", 0.0, -1.0, 5.0)
            number("ip_composition_boost", "Composition boost (0: the weight)", 0.0, -1.0, 5.0)
        with gr.Row(elem_classes=["controlnet_row"]):
            choice("ip_combine", "Several pictures", Combine)
            choice("ip_scaling", "What the weight multiplies", EmbedsScaling)
        with gr.Row(elem_classes=["controlnet_row"]):
            choice("ip_uncond", "For the negative prompt", Uncond)
            number("ip_noise", "Noise for it", 0.35, 0.0, 1.0)
        with gr.Row(elem_classes=["controlnet_row"]):
            number("ip_shortcut", "FaceID plus v2: weight of the picture's face", 1.0, -1.0, 5.0)
            number("ip_lora", "FaceID: weight of its LoRA", 1.0, 0.0, 2.0)
        values["ip_layer_weights"] = not_saved(
            gr.Textbox(
                "",
                label="Factors of single layers (empty = those of the type)",
                placeholder="3: 1, 6: 0.5",
                elem_id=f"{prefix}_controlnet_ip_layer_weighting",
            )
        )
        pulid = _pulid(values, prefix)
        files = _files(values, prefix)
    return ImagePromptEditor(part, plot, pulid, *files)


def _files(values: dict[str, Any], prefix: str) -> tuple[Any, Any]:
    """The pictures' own inputs; the button that writes embeddings, and what it has written."""
    with gr.Row(elem_classes=["controlnet_row"]):
        values["uncond_image"] = picture_input(
            "Picture for the negative prompt", elem_id=f"{prefix}_controlnet_ip_uncond_image", height=180
        )
        values["embedding_files"] = files_input(
            "Embeddings in place of the picture",
            [".safetensors"],
            elem_id=f"{prefix}_controlnet_ipadapter_input",
        )
    with gr.Row(elem_classes=["controlnet_row"]):
        write = small_button(
            "Write embeddings",
            "Make a file of what the preprocessor finds in the picture, to be given again in its place",
            elem_id=f"{prefix}_controlnet_write_embeddings",
        )
        written = gr.File(
            label="Written", interactive=False, visible=False, elem_id=f"{prefix}_controlnet_written_embeddings"
        )
    return write, written


def _pulid(values: dict[str, Any], prefix: str) -> Any:
    values["pulid_mode"] = not_saved(
        gr.Radio(
            [member.value for member in PulidMode],
            value=PulidMode.fidelity.value,
            label="PuLID Mode",
            visible=False,
            elem_id=f"{prefix}_controlnet_pulid_mode_radio",
        )
    )
    return values["pulid_mode"]


def shown_options(facts: Facts | None) -> tuple[Any, Any]:
    """Updates of the part and of PuLID's mode for a chosen model."""
    embeddings = () if facts is None or facts.sheet is None else facts.sheet.embeddings
    return gr.update(visible=bool(embeddings)), gr.update(visible=PULID in embeddings)


def draw_weights(outputs: int, weight: float, layers: str, *options: Any) -> str:
    """The weight of each transformer as bars; what is wrong with it as words. `options`: those of IMAGE_PROMPT."""
    fields = {
        "enabled": True,
        "weight": weight,
        "layer_weights": layers,
        **dict(zip(IMAGE_PROMPT, options, strict=True)),
    }
    slots = _SLOTS.get(outputs, Slots(outputs // 2, 1, max(outputs - outputs // 2 - 1, 0)))
    try:
        unit = parse_unit(fields, 0)
        prompt = unit.image_prompt
        loud = unit.layer_weights or [unit.weight * factor for factor in factors(prompt, slots, unit.weight)]
    except ControlNetError as error:
        found = "" if error.found is None else f": {error.found}"
        return f'<p class="cnet-note cnet-bad">{error.problem}{found}</p>'
    top = max(1.0, *(abs(part) for part in loud))
    width = 100 / max(len(loud), 1)
    bars = "".join(_bar(place, part, part / top, width, slots) for place, part in enumerate(loud))
    sides = sorted(swapped(prompt, slots))
    note = "encoder, middle, decoder" + (f"; {_places(sides)} act on the negative prompt" if sides else "")
    told = f"{len(loud)} layer weights: {', '.join(f'{part:.2g}' for part in loud)}"
    return (
        f'<svg viewBox="0 0 100 34" preserveAspectRatio="none" role="img" aria-label="{told}" class="cnet-bars">{bars}'
        f'</svg><p class="cnet-note">{note}</p>'
    )


def _places(numbers: list[int]) -> str:
    return ("layer " if len(numbers) == 1 else "layers ") + ", ".join(map(str, numbers))


def _bar(place: int, weight: float, height: float, width: float, slots: Slots) -> str:
    after = place - slots.inputs
    kind = "cnet-bar" if after < 0 else "cnet-bar-inner" if after < slots.middles else "cnet-bar-outer"
    high = max(abs(height) * _TOP, 0.4)
    return (
        f'<rect class="{kind}" x="{place * width + 0.4:.2f}" y="{_BOTTOM - high:.2f}" width="{width - 0.8:.2f}" '
        f'height="{high:.2f}"><title>layer {place}: {weight:.3g}</title></rect>'
    )
