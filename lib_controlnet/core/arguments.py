"""The arguments of our script, read back as units; needs no gradio."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from .errors import HostError, UnitError
from .overrides import NONE, Overrides
from .panel_options import PanelOptions, is_options, parse_options
from .units import IMAGE_PROMPT, ControlNetUnit, is_unit, parse_unit
from .uploads import uploaded

SLOTS = 32
"""Arguments before the widgets' own, in which API clients and other extensions put units.

The host drops arguments beyond the last component, so there are more slots than units can be configured: a unit too
many is then seen and refused.
"""

PANEL: tuple[str, ...] = ("prompt_mode", "caption", "batch_option", "style_align", "study")
"""The panel's own part of the arguments, behind the slots; see PanelOptions."""

FIRST_UNIT = SLOTS + len(PANEL)
"""Where the widgets of the units begin."""

FIELDS: tuple[str, ...] = (
    "enabled",
    "image",
    "mask",
    "own_image",
    "low_vram",
    "pixel_perfect",
    "crop_to_mask",
    "save_map",
    "preprocessor",
    "model",
    "weight",
    "guidance_start",
    "guidance_end",
    "resolution",
    "threshold_a",
    "threshold_b",
    "control_mode",
    "resize_mode",
    "hr_option",
    "region_mask",
    "use_region",
    "input_mode",
    "batch_images",
    "merge_images",
    "batch_dir",
    "output_dir",
    "loopback",
    "layer_weights",
    "weight_schedule",
    "hr_weight_schedule",
    "uncond_weight",
    "batch_weights",
    "reuse_control",
    "union_type",
    *IMAGE_PROMPT,
    "uncond_image",
    "embedding_files",
    "use_preview",
    "preview",
)
"""A unit's part of the script's arguments, in order.

Of the panel only: `own_image` (without it img2img's picture is used), `use_region` (without it the region mask is not),
`use_preview` (the map in `preview` is the picture, and no preprocessor runs), `embedding_files` (uploaded safetensors,
which are the unit's embeddings).
"""


def units_from_args(args: Sequence[object], unit_count: int, overrides: Overrides = NONE) -> tuple[ControlNetUnit, ...]:
    """The units among a script's arguments.

    Units given as objects or dicts (API, other extensions) come first: a unit's index is its position among all
    arguments, or among the units where a caller replaced the whole list. Without any, the widgets are read; a host
    without a page has none. Raises UnitError for a wrong unit, for what cannot be one, and for an enabled unit beyond
    `unit_count`. `overrides` are fields that something else decides.
    """
    given = [(index, value) for index, value in enumerate(args) if _is_given(value)]
    for index, value in enumerate(args[:SLOTS]):
        if not is_nothing(value) and not is_unit(value) and not is_options(value):
            raise UnitError(
                "this is not a unit",
                unit=index,
                found=f"{type(value).__name__} {value!r}",
                remedy="send an object with module, model, image and so on",
            )
    if given:
        return _from_objects([(index, overrides.apply(value, index)) for index, value in given], unit_count)
    widgets = enumerate(widget_mappings(args))
    return tuple(parse_unit(overrides.apply(fields, index), index) for index, fields in widgets)


def options_from_args(args: Sequence[object]) -> PanelOptions:
    """The panel's own options: an object with their names among the arguments (API), else the widgets'."""
    given = next((value for value in args if is_options(value)), None)
    if given is None:
        values = args[SLOTS:FIRST_UNIT]
        fields = zip(PANEL, values, strict=False)
        page = not any(_is_given(value) for value in args)
        given = {name: value for name, value in fields if page and not is_nothing(value)}
    return parse_options(given)


def widget_mappings(args: Sequence[object]) -> list[dict[str, object]]:
    """All arguments -> what each unit's widgets say, for `parse_unit`. Raises HostError where they are not ours."""
    values = args[FIRST_UNIT:]
    if all(is_nothing(value) for value in values):
        return []
    if len(values) % len(FIELDS):
        raise HostError(
            "the page's ControlNet panel is not the one this server made", remedy="reload the page in the browser"
        )
    parts = [values[start : start + len(FIELDS)] for start in range(0, len(values), len(FIELDS))]
    return [_of_unit(index, part) for index, part in enumerate(parts)]


def _of_unit(index: int, values: Sequence[object]) -> dict[str, object]:
    try:
        return as_mapping(values)
    except UnitError as error:
        raise error.for_unit(index) from error


def as_mapping(values: Sequence[object]) -> dict[str, object]:
    """The values of FIELDS -> what `parse_unit` reads. Raises UnitError for a file that nobody uploaded."""
    fields = dict(zip(FIELDS, values, strict=True))
    own, preview, use_preview = fields.pop("own_image"), fields.pop("preview"), fields.pop("use_preview")
    if not fields.pop("use_region"):
        fields["region_mask"] = None
    if use_preview and preview is not None:
        fields.update(image=preview, mask=None, preprocessor="none", pixel_perfect=False)
    elif not own:
        fields.update(image=None, mask=None)
    batch, merge = fields.pop("batch_images"), fields.pop("merge_images")
    field, uploads = ("merge_images", merge) if fields["input_mode"] == "merge" else ("batch_images", batch)
    files = [
        uploaded(name, "ipadapter_input") for item in _list(fields.pop("embedding_files")) if (name := _file_name(item))
    ]
    if files:
        fields["embeddings"] = [base64.b64encode(file.read_bytes()).decode() for file in files]
    fields["images"] = [uploaded(name, field) for item in _list(uploads) if (name := _file_name(item))]
    return fields


def is_nothing(value: object) -> bool:
    """Whether an argument is a place that nobody filled: others fill our slice with None, zeros or empty things."""
    if isinstance(value, (str, bytes, list, tuple)):
        return len(cast("Sequence[object]", value)) == 0
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return not value
    return value is None or (isinstance(value, np.ndarray) and cast("np.ndarray[Any, Any]", value).size == 0)


def _list(value: object) -> Sequence[object]:
    return cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else () if value is None else (value,)


def _file_name(item: object) -> str:
    """The uploaded file, which gradio 3 gives as an open one and gradio 4 by name."""
    return str(getattr(item, "name", item) or "")


def _is_given(value: object) -> bool:
    return not is_nothing(value) and is_unit(value) and not is_options(value)


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
