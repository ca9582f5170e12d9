"""The ControlNet panel of a tab: the script's widgets, and its arguments read back as units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ..core.errors import HostError, UnitError
from ..core.units import ControlNetUnit, configured_units, is_unit, parse_unit
from ..engine.services import Services
from . import paste
from .events import connect
from .gradio_compat import not_saved
from .unit_panel import FIELDS, UnitWidgets, as_mapping, build_unit

SLOTS = 32
"""Arguments before the widgets' own, in which API clients and other extensions put units.

The host drops arguments beyond the last component, so there are more slots than units can be configured: a unit too
many is then seen and refused.
"""


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


def units_from_args(args: Sequence[object], unit_count: int) -> tuple[ControlNetUnit, ...]:
    """The units among a script's arguments.

    Units given as objects or dicts (API, other extensions) come first: a unit's index is its position among all
    arguments, or among the units where a caller replaced the whole list. Without any, the widgets are read.
    Raises UnitError for a wrong unit and for an enabled one beyond `unit_count`.
    """
    given = [(index, value) for index, value in enumerate(args) if value is not None and is_unit(value)]
    if given:
        return _from_objects(given, unit_count)
    values = args[SLOTS:]
    if len(values) % len(FIELDS):
        raise HostError(
            "the page's ControlNet panel is not the one this server made", remedy="reload the page in the browser"
        )
    chunks = [values[start : start + len(FIELDS)] for start in range(0, len(values), len(FIELDS))]
    return tuple(parse_unit(as_mapping(chunk), index) for index, chunk in enumerate(chunks))


def _from_objects(given: Sequence[tuple[int, object]], unit_count: int) -> tuple[ControlNetUnit, ...]:
    units: list[ControlNetUnit] = []
    for index, value in given:
        unit = parse_unit(value, index)
        if index < unit_count:
            units.append(unit)
        elif unit.enabled:
            raise UnitError(
                "there are more units than configured",
                unit=index,
                found=f"{index + 1} units, configured are {unit_count}",
                remedy='raise "Multi-ControlNet: ControlNet unit number" in the settings and reload the UI',
            )
    return tuple(units)
