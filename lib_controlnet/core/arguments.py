"""The arguments of our script, read back as units; needs no gradio."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import HostError, UnitError
from .units import ControlNetUnit, is_unit, parse_unit

SLOTS = 32
"""Arguments before the widgets' own, in which API clients and other extensions put units.

The host drops arguments beyond the last component, so there are more slots than units can be configured: a unit too
many is then seen and refused.
"""

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
)
"""A unit's part of the script's arguments, in order. `own_image` is the panel's: img2img's picture is used without."""


def units_from_args(args: Sequence[object], unit_count: int) -> tuple[ControlNetUnit, ...]:
    """The units among a script's arguments.

    Units given as objects or dicts (API, other extensions) come first: a unit's index is its position among all
    arguments, or among the units where a caller replaced the whole list. Without any, the widgets are read; a host
    without a page has none. Raises UnitError for a wrong unit, for what cannot be one, and for an enabled unit beyond
    `unit_count`.
    """
    given = [(index, value) for index, value in enumerate(args) if value is not None and is_unit(value)]
    for index, value in enumerate(args[:SLOTS]):
        if value is not None and not is_unit(value):
            raise UnitError(
                "this is not a unit",
                unit=index,
                found=f"{type(value).__name__} {value!r}",
                remedy="send an object with module, model, image and so on",
            )
    if given:
        return _from_objects(given, unit_count)
    return tuple(parse_unit(fields, index) for index, fields in enumerate(widget_mappings(args)))


def widget_mappings(args: Sequence[object]) -> list[dict[str, object]]:
    """All arguments -> what each unit's widgets say, for `parse_unit`. Raises HostError where they are not ours."""
    values = args[SLOTS:]
    if all(value is None for value in values):
        return []
    if len(values) % len(FIELDS):
        raise HostError(
            "the page's ControlNet panel is not the one this server made", remedy="reload the page in the browser"
        )
    return [as_mapping(values[start : start + len(FIELDS)]) for start in range(0, len(values), len(FIELDS))]


def as_mapping(values: Sequence[object]) -> dict[str, object]:
    """The values of FIELDS -> what `parse_unit` reads."""
    fields = dict(zip(FIELDS, values, strict=True))
    if not fields.pop("own_image"):
        fields.update(image=None, mask=None)
    return fields


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
