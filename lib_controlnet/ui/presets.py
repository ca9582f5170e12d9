"""Presets, copies and the reset of a unit: settings put into its widgets as a paste does."""

from __future__ import annotations

import html
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..core.arguments import FIELDS, as_mapping
from ..core.errors import UnitError
from ..core.infotext import format_unit, unit_key
from ..core.units import ControlNetUnit, parse_unit
from ..core.uploads import uploaded
from ..engine.presets import Presets, dumps, loads
from ..engine.services import PageServices
from . import paste
from .events import QUICK, fields_of
from .gradio_compat import not_saved, small_button
from .reset import PICTURES, connect_reset
from .unit_panel import UnitWidgets, unit_prefix
from .uploads import uploads_only

_LARGEST = 1 << 20
"""Bytes of a preset: its pictures are no part of it."""


@dataclass
class PresetWidgets:
    """The row of presets of a unit."""

    name: Any
    load: Any
    save: Any
    delete: Any
    upload: Any
    export: Any
    file: Any
    source: Any
    copy: Any
    reset: Any
    undo: Any
    before: Any
    answer: Any


def build_presets(services: PageServices, tab: str, index: int, count: int) -> PresetWidgets:
    """Makes the widgets at this place of the page."""
    prefix = unit_prefix(tab, index)

    def button(text: str, tip: str, name: str) -> Any:
        return small_button(text, tip, elem_id=f"{prefix}_preset_{name}")

    with gr.Accordion("Presets, copy, reset", open=False, elem_id=f"{prefix}_presets"):
        name = not_saved(
            gr.Dropdown(
                Presets(services.presets).names(),
                label="Preset (type a new name to save)",
                allow_custom_value=True,
                elem_id=f"{prefix}_preset_dropdown",
            )
        )
        with gr.Row(elem_classes=["cnet-buttons"]):
            load, save = button("Load", "Use the preset", "load"), button("Save", "Keep the unit's settings", "save")
            delete = button("Delete", "Remove the preset", "delete")
            upload = uploads_only(
                gr.UploadButton(
                    "Import", size="sm", file_types=[".json", ".txt"], elem_id=f"{prefix}_preset_import", scale=0
                )
            )
            export = button("Export", "Make a file of the unit's settings", "export")
        file = not_saved(gr.File(label="Exported preset", visible=False, elem_id=f"{prefix}_preset_file"))
        with gr.Row(elem_classes=["cnet-buttons"]):
            others = [f"Unit {other}" for other in range(count) if other != index]
            source = not_saved(
                gr.Dropdown(others, value=others[0] if others else None, label="Copy from", visible=bool(others))
            )
            copy = small_button(
                "Copy", "Take settings and pictures of that unit", elem_id=f"{prefix}_copy_unit", visible=bool(others)
            )
            reset = button("Reset unit", "Back to the defaults, without pictures", "reset")
            undo = small_button(
                "Undo reset", "Settings and pictures as before", elem_id=f"{prefix}_preset_undo", visible=False
            )
        answer = gr.HTML("", elem_id=f"{prefix}_preset_answer")
    before = gr.State(None)
    return PresetWidgets(name, load, save, delete, upload, export, file, source, copy, reset, undo, before, answer)


def connect_presets(services: PageServices, units: Sequence[UnitWidgets], index: int, widgets: PresetWidgets) -> None:
    """Connects the row of unit `index`."""
    unit, presets = units[index], Presets(services.presets)
    targets = list(paste.fields(services, index, unit))
    outputs = [component for component, _target in targets]

    def put(text: str, enabled: bool | None = None) -> list[Any]:
        params = {unit_key(index): text}
        values = [target(params) for _component, target in targets]
        values[0] = enabled  # the first is `enabled`, which a preset says nothing of
        return [gr.update() if value is None else value for value in values]

    def connect(button: Any, handler: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        action = button.upload if button is widgets.upload else button.click
        unit.problem.on(action, handler, inputs, outputs, **QUICK)

    def save(name: str, *arguments: Any) -> Any:
        presets.save(name or "", settings_of(arguments, index))
        return gr.update(choices=presets.names(), value=name.strip()), _answer(f'Saved as "{name.strip()}"')

    def delete(name: str) -> Any:
        presets.delete(name or "")
        return gr.update(choices=presets.names(), value=None), _answer(f'"{name}" is deleted')

    connect(
        widgets.load,
        lambda name: [*put(presets.load(name or "")), _answer(f'"{name}" is loaded')],
        [widgets.name],
        [*outputs, widgets.answer],
    )
    connect(widgets.save, save, [widgets.name, *unit.arguments()], [widgets.name, widgets.answer])
    connect(widgets.delete, delete, [widgets.name], [widgets.name, widgets.answer])
    connect(
        widgets.upload,
        lambda file: [*put(loads(_content(file))), _answer("Settings are loaded from the file")],
        [widgets.upload],
        [*outputs, widgets.answer],
    )
    connect(
        widgets.export,
        lambda *arguments: gr.update(value=_exported(dumps(settings_of(arguments, index))), visible=True),
        unit.arguments(),
        [widgets.file],
    )
    connect_reset(services, unit, widgets, lambda: put(format_unit(ControlNetUnit()), enabled=False), outputs)
    if len(units) > 1:
        _connect_copy(units, index, widgets, put, outputs)


def _answer(text: str) -> str:
    """What a button has done; each time another text, so that a second click is answered too."""
    number = secrets.token_hex(4)
    return f'<p class="cnet-note cnet-good" role="status" data-said="{number}">{html.escape(text)}.</p>'


def _connect_copy(
    units: Sequence[UnitWidgets], index: int, widgets: PresetWidgets, put: Callable[..., Any], outputs: list[Any]
) -> None:
    names = [*PICTURES, "use_region"]

    def copy(source: str, *arguments: Any) -> list[Any]:
        number = int(source.rpartition(" ")[2])
        start = number * len(FIELDS)
        own = arguments[start : start + len(FIELDS)]
        fields = fields_of(own)
        return [*put(format_unit(settings_of(own, number)), fields["enabled"]), *(fields[name] for name in names)]

    everything = [component for unit in units for component in unit.arguments()]
    units[index].problem.on(
        widgets.copy.click,
        copy,
        [widgets.source, *everything],
        [*outputs, *(units[index].values[name] for name in names)],
        **QUICK,
    )


def settings_of(arguments: Sequence[Any], index: int) -> ControlNetUnit:
    """What a unit's widgets say, without its pictures."""
    fields = as_mapping(arguments[: len(FIELDS)])
    without = dict.fromkeys((*PICTURES, "images", "embeddings"), None) | {"input_mode": "simple", "enabled": True}
    return parse_unit({**fields, **without}, index)


def _content(file: Any) -> str:
    """What the user uploaded, and no other file of this computer."""
    path = uploaded(str(getattr(file, "name", file)), "preset")
    with path.open("rb") as opened:
        content = opened.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise UnitError("this is no preset of a unit", field="preset", found=f"a file of more than {_LARGEST} bytes")
    return content.decode("utf-8", "replace")


def _exported(text: str) -> str:
    """A file that gradio gives to the browser."""
    path = Path(tempfile.mkdtemp(prefix="controlnet-")) / "controlnet-preset.json"
    path.write_text(text, "utf-8")
    return str(path)
