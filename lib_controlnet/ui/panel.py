"""The ControlNet panel of a tab: the script's widgets."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..core.arguments import SLOTS
from ..core.units import configured_units
from ..engine.services import Services
from . import paste
from .events import connect
from .gradio_compat import not_saved
from .unit_panel import UnitWidgets, build_unit


def build(services: Services, tabname: str, is_img2img: bool, script: Any) -> list[Any]:
    """Makes the panel at this place of the page and returns the script's arguments: SLOTS states, then the widgets.

    Called several times for one script (hosts also build throw-away pages): nothing is kept but the paste fields,
    which the host reads from the script right after.
    """
    slots = [not_saved(gr.State(None)) for _ in range(SLOTS)]
    count = configured_units(services.setting)
    with gr.Group(elem_id=f"{tabname}_controlnet"), gr.Accordion("ControlNet", open=False, elem_id="controlnet"):
        units = _tabs(services, tabname, is_img2img, count)
    script.infotext_fields = []
    script.paste_field_names = []
    if services.setting("control_net_sync_field_args", True):
        script.infotext_fields = [
            field for index, unit in enumerate(units) for field in paste.fields(services, index, unit)
        ]
        script.paste_field_names = paste.names(count)
    return [*slots, *(component for unit in units for component in unit.arguments())]


def _tabs(services: Services, tabname: str, is_img2img: bool, count: int) -> list[UnitWidgets]:
    units: list[UnitWidgets] = []
    with gr.Tabs(elem_id=f"{tabname}_controlnet_tabs"):
        for index in range(count):
            with gr.Tab(f"ControlNet Unit {index}", elem_classes=["cnet-unit-tab"]):
                unit = build_unit(services, tabname, is_img2img, index)
                connect(services, tabname, is_img2img, index, unit)
                units.append(unit)
    return units
