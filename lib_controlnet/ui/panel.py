"""The ControlNet panel of a tab: the script's widgets."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from ..core.arguments import PANEL, SLOTS
from ..core.errors import UnitError
from ..core.images import read_picture
from ..core.panel_options import BatchOption, PromptMode
from ..core.units import configured_units
from ..engine.services import PageServices
from . import paste
from .drawing import palette_html, strengths_html
from .embeddings import connect_embeddings
from .events import connect, shown_errors
from .gradio_compat import not_saved, small_button
from .presets import PresetWidgets, build_presets, connect_presets
from .preview import connect_preview
from .unit_panel import UnitWidgets, build_unit


def build(services: PageServices, tabname: str, is_img2img: bool, script: Any) -> list[Any]:
    """Makes the panel at this place of the page and returns the script's arguments: states, the panel's, the units'.

    Called several times for one script (hosts also build throw-away pages): nothing is kept but the paste fields,
    which the host reads from the script right after.
    """
    slots = [not_saved(gr.State(None))] * SLOTS  # one for all: nothing is ever put into it on the page
    count = configured_units(services.setting)
    with gr.Group(elem_id=f"{tabname}_controlnet"), gr.Accordion("ControlNet", open=False, elem_id="controlnet"):
        _problems(services)
        gr.HTML(palette_html(services.palette()) + strengths_html(), elem_classes=["cnet-unseen"])
        units = _tabs(services, tabname, is_img2img, count)
        options = _options(tabname)
        _connect_caption(services, options, units)
    script.infotext_fields = []
    script.paste_field_names = []
    if services.setting("control_net_sync_field_args", True):
        script.infotext_fields = [
            *paste.option_fields(options),
            *(field for index, unit in enumerate(units) for field in paste.fields(services, index, unit)),
        ]
        script.paste_field_names = paste.names(count)
    shared = [options[name] for name in PANEL]
    return [*slots, *shared, *(component for unit in units for component in unit.arguments())]


def _problems(services: PageServices) -> None:
    problems = [html.escape(problem) for problem in services.setting_problems()]
    if problems:
        gr.HTML("".join(f'<p class="cnet-note cnet-warn">{problem}.</p>' for problem in problems))


def _tabs(services: PageServices, tabname: str, is_img2img: bool, count: int) -> list[UnitWidgets]:
    units: list[UnitWidgets] = []
    presets: list[PresetWidgets] = []
    with gr.Tabs(elem_id=f"{tabname}_controlnet_tabs"):
        for index in range(count):
            with gr.Tab(f"ControlNet Unit {index}", elem_classes=["cnet-unit-tab"]):
                unit = build_unit(services, tabname, is_img2img, index)
                connect(services, tabname, is_img2img, index, unit)
                connect_preview(services, tabname, index, unit)
                connect_embeddings(services, tabname, index, unit)
                units.append(unit)
                presets.append(build_presets(services, tabname, index, count))
    for index, widgets in enumerate(presets):
        connect_presets(services, units, index, widgets)
    return units


def _options(tabname: str) -> dict[str, Any]:
    """What holds for all units together."""
    prefix = f"{tabname}_controlnet"
    with gr.Accordion("All units: prompt and batch", open=False, elem_id=f"{prefix}_options"):
        mode = gr.Dropdown(
            [member.value for member in PromptMode],
            value=PromptMode.typed.value,
            label="Prompt mode (the paper's)",
            elem_id=f"{prefix}_prompt_mode",
        )
        caption = not_saved(
            gr.Textbox(
                "",
                label="Caption for the automatic modes",
                placeholder="empty: the WebUI's interrogator writes it",
                elem_id=f"{prefix}_caption",
            )
        )
        write = small_button(
            "Write caption", "Let the WebUI describe the first unit's picture", elem_id=f"{prefix}_write_caption"
        )
        option = gr.Radio(
            [member.value for member in BatchOption],
            value=BatchOption.all_units.value,
            label="Batch option",
            elem_id=f"{prefix}_batch_option_radio",
        )
        align = gr.Checkbox(
            False, label="[StyleAlign] Align image style in the batch.", elem_id=f"{prefix}_style_align"
        )
    study = not_saved(
        gr.Textbox("", label="Study", show_label=False, elem_id=f"{prefix}_study", elem_classes=["cnet-unseen"])
    )
    chosen = {"prompt_mode": mode, "caption": caption, "batch_option": option, "style_align": align}
    return {**chosen, "study": study, "write": write}


def _connect_caption(services: PageServices, options: dict[str, Any], units: list[UnitWidgets]) -> None:
    """The caption is seen and edited before it is used."""

    def write(*images: Any) -> str:
        picture = next((read for image in images if (read := read_picture(image)) is not None), None)
        if picture is None:
            raise UnitError("there is no picture to caption", field="caption", remedy="give a unit a picture")
        return services.caption(picture.pixels)

    options["write"].click(shown_errors(write), [unit.values["image"] for unit in units], [options["caption"]])
