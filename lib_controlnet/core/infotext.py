"""A unit as generation parameters: the line `ControlNet 0: "Module: canny, Model: …"` and back.

The text is sd-webui-controlnet's, key by key. Fields that it does not know are added only where they differ from the
default, under names that it ignores when reading. Read are its format, Forge's, and those of before 2024.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum

from .errors import UnitError
from .modes import HiResOption, InputMode, UnionType
from .units import IMAGE_PROMPT, ControlNetUnit, parse_unit

PREFIX = "ControlNet"

FIELDS = (
    "Module",
    "Model",
    "Weight",
    "Resize Mode",
    "Processor Res",
    "Threshold A",
    "Threshold B",
    "Guidance Start",
    "Guidance End",
    "Pixel Perfect",
    "Control Mode",
)
"""The fields that every unit's text has, in order."""

_UNIT_KEY = re.compile(rf"{PREFIX} (\d+)")
_FLAT_KEY = re.compile(rf"{PREFIX}(?:[- ](\d+))? ([A-Z][A-Za-z ]*)")
_OLD_NAMES = {
    "preprocessor": "module",
    "model": "model",
    "weight": "weight",
    "resize mode": "resize_mode",
    "pixel perfect": "pixel_perfect",
    "control mode": "control_mode",
    "hr option": "hr_option",
}
_OLD_PART = re.compile(r"([a-z][a-z /]*): (\([^)]*\)|[^,]*)(?:, |$)")
_ESCAPES = {"%": "%25", ",": "%2C", ":": "%3A", "\n": "%0A"}


def unit_key(index: int) -> str:
    """The generation parameter that holds the unit."""
    return f"{PREFIX} {index}"


def is_unit_key(key: object) -> bool:
    """Whether `unit_key` gives it for some unit."""
    return isinstance(key, str) and _UNIT_KEY.fullmatch(key) is not None


def format_unit(
    unit: ControlNetUnit,
    *,
    preprocessor: str | None = None,
    model: str | None = None,
    resolution: int | None = None,
    params: Sequence[float] | None = None,
) -> str:
    """The text of a unit, with the names and numbers that were really used where they are given.

    `resolution` and `params` (threshold a, b, as far as the preprocessor has them) are the preprocessor's after
    defaults; without them the unit's own.
    """
    thresholds = (unit.threshold_a, unit.threshold_b) if params is None else (*params[:2], -1.0, -1.0)[:2]
    values: tuple[object, ...] = (
        preprocessor or unit.preprocessor,
        model or unit.model,
        float(unit.weight),
        unit.resize_mode.value,
        unit.resolution if resolution is None else resolution,
        float(thresholds[0]),
        float(thresholds[1]),
        float(unit.guidance_start),
        float(unit.guidance_end),
        unit.pixel_perfect,
        unit.control_mode.value,
    )
    pairs = [*zip(FIELDS, values, strict=True), *_extras(unit)]
    return ", ".join(f"{name}: {_escape(str(value))}" for name, value in pairs)


def parse_units(params: Mapping[str, object]) -> dict[int, dict[str, str]]:
    """Generation parameters -> unit index -> fields under the API's names, values as written.

    Reads `ControlNet 0` in all its formats and the flat `ControlNet-0 Module`, `ControlNet Module` of early 2023.
    """
    units: dict[int, dict[str, str]] = {}
    for key, value in params.items():
        found = _UNIT_KEY.fullmatch(key)
        if found and isinstance(value, str) and value:
            units[int(found[1])] = parse_text(value)
    return units or _parse_flat(params)


def parse_text(text: str) -> dict[str, str]:
    """The text of one unit -> fields under the API's names."""
    text = text.strip().strip('"')
    if re.match(r"preprocessor\s*:", text):
        return dict(_parse_old(text))
    pairs = (part.partition(": ") for part in re.split(r",\s*", text))
    return {_field_name(name): _unescape(value.strip()) for name, colon, value in pairs if colon}


def read_units(params: Mapping[str, object]) -> tuple[dict[int, ControlNetUnit], list[UnitError]]:
    """Generation parameters -> enabled units without pictures, and what could not be read (left at its default)."""
    units: dict[int, ControlNetUnit] = {}
    problems: list[UnitError] = []
    for index, fields in sorted(parse_units(params).items()):
        units[index] = _read_leniently(index, dict(fields), problems)
    return units, problems


def _read_leniently(index: int, fields: dict[str, str], problems: list[UnitError]) -> ControlNetUnit:
    fields.pop("input_mode", None)  # a text has no pictures, which every mode but the simple one needs
    while True:
        try:
            unit = parse_unit({**fields, "enabled": True}, index)
            problems += [UnitError(note, unit=index) for note in unit.notes]
            return replace(unit, notes=())
        except UnitError as error:
            problems.append(error)
            if error.field is None or fields.pop(error.field, None) is None:
                return ControlNetUnit(index=index, enabled=True)


def _extras(unit: ControlNetUnit) -> Iterator[tuple[str, object]]:
    if unit.hr_option is not HiResOption.both:
        yield "Hr Option", unit.hr_option.value
    if unit.low_vram:
        yield "Low Vram", True
    if not unit.save_map:
        yield "Save Detected Map", False
    if unit.input_mode is not InputMode.simple:
        yield "Input Mode", unit.input_mode.value
    if unit.loopback:
        yield "Loopback", True
    if not unit.crop_to_mask:
        yield "Inpaint Crop Input Image", False
    if unit.union_type is not UnionType.unknown:
        yield "Union Control Type", unit.union_type.value
    if unit.layer_weights is not None:
        yield "Layer Weights", _joined(unit.layer_weights)
    if unit.weight_schedule is not None:
        yield "Weight Schedule", unit.weight_schedule
    if unit.hr_weight_schedule is not None:
        yield "Hr Weight Schedule", unit.hr_weight_schedule
    if unit.uncond_weight != 1.0:
        yield "Uncond Weight", f"{unit.uncond_weight:g}"
    if unit.batch_weights is not None:
        yield "Batch Weights", _joined(unit.batch_weights)
    if unit.reuse_control >= 0.0:
        yield "Reuse Control", f"{unit.reuse_control:g}"
    yield from _image_prompt(unit)


def _image_prompt(unit: ControlNetUnit) -> Iterator[tuple[str, object]]:
    default = ControlNetUnit()
    for name in IMAGE_PROMPT:
        value = getattr(unit, name)
        if value == getattr(default, name):
            continue
        if name == "ip_layer_weights":
            value = "/".join(f"{place}={factor:g}" for place, factor in unit.ip_layer_weights)
        words = value.value if isinstance(value, Enum) else f"{value:g}" if isinstance(value, float) else value
        yield name.replace("_", " ").title(), words


def _joined(numbers: Sequence[float]) -> str:
    return "/".join(f"{number:g}" for number in numbers)


def _parse_old(text: str) -> Iterator[tuple[str, str]]:
    """`preprocessor: canny, …, starting/ending: (0, 1), …, preprocessor params: (512, 100, 200)`."""
    for name, value in _OLD_PART.findall(text):
        numbers = [part.strip() for part in value.strip("()").split(",")]
        if name == "starting/ending":
            yield from zip(("guidance_start", "guidance_end"), numbers, strict=False)
        elif name == "preprocessor params":
            yield from zip(("processor_res", "threshold_a", "threshold_b"), numbers, strict=False)
        elif name in _OLD_NAMES:
            yield _OLD_NAMES[name], value


def _parse_flat(params: Mapping[str, object]) -> dict[int, dict[str, str]]:
    units: dict[int, dict[str, str]] = {}
    for key, value in params.items():
        found = _FLAT_KEY.fullmatch(key)
        if found:
            name = "module" if found[2] == "Preprocessor" else _field_name(found[2])
            units.setdefault(int(found[1] or 0), {})[name] = str(value)
    return {
        index: {name: value for name, value in fields.items() if name != "enabled"}
        for index, fields in units.items()
        if "module" in fields and fields.get("enabled", "True") == "True"
    }


def _field_name(display: str) -> str:
    return "_".join(display.strip().lower().split())


def _escape(text: str) -> str:
    """Keep `,` and `:` out of a value: they separate. Nothing changes in a text without them."""
    if not any(mark in text for mark in (",", ":", "\n")) and not any(code in text for code in _ESCAPES.values()):
        return text
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def _unescape(text: str) -> str:
    for mark, code in reversed(_ESCAPES.items()):
        text = text.replace(code, mark)
    return text
