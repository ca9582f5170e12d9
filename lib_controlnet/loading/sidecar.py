"""What is said of a model beside its file: cldm's `<name>.yaml`, and the `config.json` of a diffusers folder."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import cast

from ..core.errors import ModelFileError
from .canonical import is_diffusers
from .version import beside
from .xs import is_diffusers_xs

POOLED = "global_average_pooling"
"""Whether outputs are averaged over positions: "true" or "false"."""
CHANNELS = "controlnet_conditioning_channel_order"
"""The order in which the hint encoder takes the hint's channels: "rgb" or "bgr"."""
FACE_CONTEXT = "face_context"
"""Whether a ControlNet hears a face in place of the prompt, as InstantID's: "true" or "false"."""
FACEID_PLUS = "faceid_plus_version"
"""Which version of FaceID-plus an IP-Adapter is, "1" or "2"; they have the same weights by name and shape."""
FACE_EMBEDDING = "face_embedding"
"""Which face an IP-Adapter with a resampler reads: "instant_id" (antelopev2) or "face_id" (buffalo_l)."""

TIME_MIX = "time_embedding_mix"
"""How far a ControlNet-XS's own embedding of the timesteps counts, 0 to 1."""
HEADS = "num_attention_heads"
"""Of a ControlNet-XS: one number, or one a level with commas between."""
TASK = "coadapter_task"
"""What a CoAdapter was trained for, one of `TASKS`, in the order of its fuser's."""
TASKS = ("sketch", "keypose", "seg", "depth", "canny", "style", "color", "openpose")
NAMING = "naming"
"""Whose names the tensors of a ControlNet-XS have: "diffusers" where the file has theirs."""

_NAMES = {
    POOLED: POOLED,
    "global_pool_conditions": POOLED,
    CHANNELS: CHANNELS,
    TIME_MIX: TIME_MIX,
    HEADS: HEADS,
    TASK: TASK,
    FACE_CONTEXT: FACE_CONTEXT,
    FACEID_PLUS: FACEID_PLUS,
    FACE_EMBEDDING: FACE_EMBEDDING,
}
_VALUES: Mapping[str, tuple[str, ...]] = {
    TASK: TASKS,
    POOLED: ("true", "false"),
    CHANNELS: ("rgb", "bgr"),
    FACE_CONTEXT: ("true", "false"),
    FACEID_PLUS: ("1", "2"),
    FACE_EMBEDDING: ("instant_id", "face_id"),
}
_NUMBERS = {
    TIME_MIX: (re.compile(r"0(\.\d+)?|1(\.0+)?"), "a number from 0 to 1"),
    HEADS: (re.compile(r"[1-9]\d*(,[1-9]\d*)*"), "a whole number, or one a level"),
}
_LARGEST = 1 << 20


def stated_beside(path: Path, keys: Collection[str], metadata: Mapping[str, str]) -> dict[str, str]:
    """`metadata` of the file with what lies beside it for the names above; the file's own word goes first.

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
    naming = {NAMING: "diffusers"} if is_diffusers_xs(keys) else {}
    return {**metadata, **found, **own, **naming}


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
    text = re.sub(r"[\s\[\]()]", "", str(value)).lower()
    pattern, words = _NUMBERS.get(name, (None, " or ".join(_VALUES.get(name, ()))))
    if text not in _VALUES.get(name, ()) and not (pattern and pattern.fullmatch(text)):
        raise ModelFileError(
            f'"{file.name}" says something of the model that is not understood',
            field="model",
            found=f"{name}: {value!r}",
            remedy=f"write {words}",
        )
    return text
