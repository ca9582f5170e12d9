"""What is said of a model beside its file: cldm's `<name>.yaml`, and the `config.json` of a diffusers folder."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import cast

from ..core.errors import ModelFileError
from .canonical import is_diffusers
from .version import beside

POOLED = "global_average_pooling"
"""Whether outputs are averaged over positions: "true" or "false"."""
CHANNELS = "controlnet_conditioning_channel_order"
"""The order in which the hint encoder takes the hint's channels: "rgb" or "bgr"."""

_NAMES = {POOLED: POOLED, "global_pool_conditions": POOLED, CHANNELS: CHANNELS}
_VALUES = {POOLED: ("true", "false"), CHANNELS: ("rgb", "bgr")}
_LARGEST = 1 << 20


def stated_beside(path: Path, keys: Collection[str], metadata: Mapping[str, str]) -> dict[str, str]:
    """`metadata` of the file with what lies beside it for POOLED and CHANNELS; the file's own word goes first.

    A `config.json` speaks for files with diffusers' names only, since others may lie in its folder. `keys` are the
    file's own. Raises ModelFileError for a file beside that cannot be read, and for a value that is none of these.
    """
    sidecar, config = beside(path)
    found: dict[str, str] = {}
    if is_diffusers(keys) and config.is_file():
        found |= _stated(config, _read(config, json.loads))
    if sidecar.is_file():
        found |= _stated(sidecar, _read(sidecar, _yaml))
    own = _stated(path, {key: value for key, value in metadata.items() if key in _NAMES})
    return {**metadata, **found, **own}


def _yaml(text: str) -> object:
    yaml = importlib.import_module("yaml")  # needed by few, and every host has it
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:  # its own text quotes the file
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"no YAML{f', line {mark.line + 1}' if mark else ''}") from error


def _read(file: Path, parse: Callable[[str], object]) -> object:
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError(f"more than {_LARGEST} bytes")
        return parse(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(
            f'"{file.name}", which says how the model beside it is used, cannot be read',
            field="model",
            found=f"{file}: {reason}"[:300],
            remedy="repair it, or move it away",
        ) from error


def _stated(file: Path, content: object) -> dict[str, str]:
    """The values of our names anywhere in nested tables and lists."""
    found: dict[str, str] = {}
    waiting, seen = [content], set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue  # YAML can refer to what is around it
        seen.add(id(value))
        if isinstance(value, Mapping):
            table = cast("Mapping[object, object]", value)
            said = {key: item for key, item in table.items() if key in _NAMES and item is not None}
            found |= {_NAMES[str(key)]: _value(file, _NAMES[str(key)], item) for key, item in said.items()}
            waiting += table.values()
        elif isinstance(value, list):
            waiting += cast("list[object]", value)
    return found


def _value(file: Path, name: str, value: object) -> str:
    text = str(value).strip().lower()
    if text not in _VALUES[name]:
        raise ModelFileError(
            f'"{file.name}" says something of the model that is not understood',
            field="model",
            found=f"{name}: {value!r}",
            remedy=f"write {' or '.join(_VALUES[name])}",
        )
    return text
