"""The mutable unit that other extensions make and change, with the peers' names and defaults."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np

from ..core import legacy, modes, units
from ..core.errors import UnitError
from ..core.images import is_empty
from ..core.legacy import read_choice
from ..core.unknown import unknown_key
from .enums import ControlMode, ControlNetUnionControlType, HiResFixOption, InputMode, PuLIDMode, ResizeMode

log = logging.getLogger("ControlNet")


def resize_mode_from_value(value: str | int | Enum) -> ResizeMode:
    """Any spelling of a resize mode -> the member."""
    return ResizeMode(read_choice(modes.ResizeMode, value).value)


def _plain(value: Any) -> Any:
    """A choice as its word; no numbers as None."""
    return value.value if isinstance(value, Enum) else None if value == () else value


DEFAULTS: Mapping[str, Any] = {
    "enabled": False,
    "module": "none",
    "model": "None",
    "weight": 1.0,
    "image": None,
    "mask": None,
    "resize_mode": ResizeMode.INNER_FIT,
    "low_vram": False,
    "processor_res": -1,
    "threshold_a": -1,
    "threshold_b": -1,
    "guidance_start": 0.0,
    "guidance_end": 1.0,
    "pixel_perfect": False,
    "control_mode": ControlMode.BALANCED,
    "inpaint_crop_input_image": True,
    "hr_option": HiResFixOption.BOTH,
    "save_detected_map": True,
    "advanced_weighting": None,
    "weight_schedule": None,
    "hr_weight_schedule": None,
    "uncond_weight": 1.0,
    "batch_weights": None,
    "reuse_control": -1.0,
    "effective_region_mask": None,
    "union_control_type": ControlNetUnionControlType.UNKNOWN,
    "input_mode": InputMode.SIMPLE,
    "batch_images": "",
    "output_dir": "",
    "loopback": False,
    "images": [],
    "pulid_mode": PuLIDMode.FIDELITY,
    **{name: _plain(getattr(units.ControlNetUnit(), name)) for name in units.IMAGE_PROMPT if name != "pulid_mode"},
    "ipadapter_input": None,
    "use_preview_as_input": False,
    "batch_mask_dir": None,
    "animatediff_batch": False,
    "batch_modifiers": [],
    "batch_image_files": [],
    "batch_input_gallery": None,
    "batch_keyframe_idx": None,
    "generated_image": None,
    "is_ui": False,
}
"""Field -> default, in the peers' words."""

_ENUMS: Mapping[str, tuple[type[Enum], type[Enum]]] = {
    "resize_mode": (modes.ResizeMode, ResizeMode),
    "control_mode": (modes.ControlMode, ControlMode),
    "hr_option": (modes.HiResOption, HiResFixOption),
    "input_mode": (modes.InputMode, InputMode),
    "pulid_mode": (modes.PulidMode, PuLIDMode),
    "union_control_type": (modes.UnionType, ControlNetUnionControlType),
}
"""Field -> our enumeration, which reads every spelling, and the peers', whose members others look at."""

_NUMBERS = ("advanced_weighting", "weight_schedule", "hr_weight_schedule", "batch_weights", "ip_layer_weights")
"""Fields whose widgets are texts: an empty one is None."""

_CANONICAL = {name: names[0] for names in legacy.SPELLINGS.values() for name in names if name not in DEFAULTS}
_KNOWN = (*DEFAULTS, *legacy.IGNORED, *legacy.EMPTY_ONLY, *legacy.GUESS_MODE)


class ControlNetUnit:
    """A unit under construction; what its fields hold when a generation begins is what counts.

    Keyword arguments are the fields and all their older names; None means a field's default. A unit made with a model,
    a preprocessor or a picture and without `enabled` is enabled: the peers differ here, and a unit that somebody made
    is meant to act. A name that no field has is kept and logged, one that is nearly a field's is an error.
    """

    image: Any
    mask: Any
    enabled: Any

    def __init__(self, **fields: Any) -> None:
        vars(self).update({name: copy.copy(value) for name, value in DEFAULTS.items()})
        given: dict[str, Any] = {}
        for key, value in fields.items():
            name = self._name(key)
            if name in given and not _same(given[name], value):
                raise TypeError(f"a field of ControlNetUnit was given under two names, with two values: {key!r}")
            given[name] = value
        given = {name: value for name, value in given.items() if value is not None}
        vars(self).update({"enabled": _acts(given), **given})

    @staticmethod
    def _name(key: str) -> str:
        name = _CANONICAL.get(key, key)
        if name in _KNOWN or name.startswith("_"):
            return name
        try:
            log.warning("ControlNetUnit: %s", unknown_key(key, _KNOWN))
        except UnitError as error:
            raise TypeError(f"ControlNetUnit has no field {key!r}: {error.remedy}") from None
        return name

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ControlNetUnit:
        """A unit of the fields of an API request."""
        return cls(**fields)

    def dict(self) -> dict[str, Any]:
        """The fields."""
        return dict(vars(self))

    def get(self, name: str, default: Any = None) -> Any:
        """A field by its name, as of a dict: AnimateDiff asks what a request held so."""
        return vars(self).get(name, default)

    def copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Any:
        """A unit with the same fields, and those of `update` instead."""
        twin = copy.deepcopy(self) if deep else copy.copy(self)
        vars(twin).update(update or {})
        return twin

    @property
    def is_animate_diff_batch(self) -> bool:
        """Whether AnimateDiff asks for a map for each frame."""
        return bool(vars(self).get("animatediff_batch"))

    @property
    def is_inpaint(self) -> bool:
        """Whether the preprocessor is one of inpainting, as the peers tell it."""
        return "inpaint" in str(vars(self).get("module"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ControlNetUnit):
            return NotImplemented
        mine, theirs = vars(self), vars(other)
        return mine.keys() == theirs.keys() and all(_same(mine[key], theirs[key]) for key in mine)

    __hash__ = None  # type: ignore[assignment] - mutable

    def __repr__(self) -> str:
        changed = {key: value for key, value in vars(self).items() if not _same(value, DEFAULTS.get(key))}
        shown = ", ".join(f"{key}={_short(value)}" for key, value in changed.items())
        return f"ControlNetUnit({shown})"


def shown_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """A unit in any mapping's words -> the attributes under which others look at it; what cannot be read stays."""
    canonical = ((_canonical(key), value) for key, value in given.items() if value is not None)
    fields = {name: _shown(name, value) for name, value in canonical if name in DEFAULTS}
    fields["enabled"] = _truth(fields["enabled"]) if "enabled" in fields else _acts(fields)
    return fields


def _canonical(key: Any) -> str:
    name = legacy.key_name(key)
    return _CANONICAL.get(name, name)


def _shown(name: str, value: Any) -> Any:
    if name in _NUMBERS and isinstance(value, str) and not value.strip():
        return None
    if name not in _ENUMS:
        return value
    ours, theirs = _ENUMS[name]
    try:
        return theirs(read_choice(ours, value).value)
    except UnitError:
        return value


def _truth(value: Any) -> bool:
    return value.strip().lower() in ("true", "1", "yes", "on") if isinstance(value, str) else bool(value)


def _acts(fields: Mapping[str, Any]) -> bool:
    """Whether a unit that does not say `enabled` is meant to act."""
    named = any(str(fields.get(key) or "none").strip().lower() != "none" for key in ("module", "model"))
    return named or not is_empty(fields.get("image"))


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and np.array_equal(first, second)
    return bool(first == second)


def _short(value: Any) -> str:
    return f"<{value.shape} {value.dtype}>" if isinstance(value, np.ndarray) else repr(value)[:60]
