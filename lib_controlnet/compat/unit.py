"""The mutable unit that other extensions make and change, with the peers' names and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np

from ..core import legacy
from ..core.images import is_empty
from ..core.legacy import read_choice
from ..core.modes import ResizeMode as CoreResizeMode


class ControlMode(Enum):
    """How prompt and control are balanced."""

    BALANCED = "Balanced"
    PROMPT = "My prompt is more important"
    CONTROL = "ControlNet is more important"


class ResizeMode(Enum):
    """How a map is brought to the picture's size."""

    RESIZE = "Just Resize"
    INNER_FIT = "Crop and Resize"
    OUTER_FIT = "Resize and Fill"

    def int_value(self) -> int:
        """The host's number of the mode."""
        return list(ResizeMode).index(self)


class HiResFixOption(Enum):
    """The passes in which a unit acts."""

    BOTH = "Both"
    LOW_RES_ONLY = "Low res only"
    HIGH_RES_ONLY = "High res only"


class InputMode(Enum):
    """Where a unit's pictures come from."""

    SIMPLE = "simple"
    BATCH = "batch"
    MERGE = "merge"


class BatchOption(Enum):
    """Which units act on which pictures of a batch."""

    DEFAULT = "All ControlNet units for all images in a batch"
    SEPARATE = "Each ControlNet unit for each image in a batch"


def resize_mode_from_value(value: str | int | Enum) -> ResizeMode:
    """Any spelling of a resize mode -> the member."""
    return ResizeMode(read_choice(CoreResizeMode, value).value)


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
    "effective_region_mask": None,
    "union_control_type": "Unknown",
    "input_mode": InputMode.SIMPLE,
    "batch_images": None,
    "output_dir": "",
    "loopback": False,
    "images": [],
}
"""Field -> default, in the peers' words."""

_CANONICAL = {name: names[0] for names in legacy.SPELLINGS.values() for name in names}


class ControlNetUnit:
    """A unit under construction; what its fields hold when a generation begins is what counts.

    Keyword arguments are the fields and all their older names. A unit made with a model, a preprocessor or a picture
    and without `enabled` is enabled: the peers differ here, and a unit that somebody made is meant to act.
    """

    image: Any
    mask: Any

    def __init__(self, **fields: Any) -> None:
        vars(self).update(DEFAULTS)
        given = {self._name(key): value for key, value in fields.items()}
        if len(given) < len(fields):
            raise TypeError("a field of ControlNetUnit was given under two names")
        named = any(str(given.get(key) or "none").lower() != "none" for key in ("module", "model"))
        vars(self).update({"enabled": named or not is_empty(given.get("image")), **given})

    @staticmethod
    def _name(key: str) -> str:
        name = _CANONICAL.get(key, key)
        known = (*DEFAULTS, *legacy.IGNORED, *legacy.EMPTY_ONLY, *legacy.GUESS_MODE)
        if name not in known:
            raise TypeError(f"ControlNetUnit has no field {key!r}")
        return name

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ControlNetUnit:
        """A unit of the fields of an API request."""
        return cls(**fields)

    def dict(self) -> dict[str, Any]:
        """The fields."""
        return dict(vars(self))

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


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and np.array_equal(first, second)
    return bool(first == second)


def _short(value: Any) -> str:
    return f"<{value.shape} {value.dtype}>" if isinstance(value, np.ndarray) else repr(value)[:60]
