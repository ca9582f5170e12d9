"""The host's options that are ours: their names, types and defaults, and the one place where they are read.

Hosts keep whatever a hand or another program wrote into their file, so a value may be of any type. One that cannot be
used is replaced by the default and named: in the log once, and on the page.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("ControlNet")

MISSING = object()
"""What a host gives for an option that it does not have."""

_TRUE, _FALSE = frozenset(("true", "yes", "on", "1")), frozenset(("false", "no", "off", "0"))


@dataclass(frozen=True)
class Option:
    """Of `default`'s type. Numbers lie within `low` and `high`, texts are among `choices` if there are any."""

    default: bool | int | float | str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        """What must be given, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        kinds: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        bounds = f" from {self.low:g} to {self.high:g}" if math.isfinite(self.low) else ""
        return kinds[type(self.default)] + bounds

    def read(self, value: object) -> bool | int | float | str:
        """The value in the option's type. Raises ValueError where it has none."""
        if isinstance(self.default, str):
            if not isinstance(value, str) or (self.choices and value not in self.choices):
                raise ValueError
            return value
        if isinstance(self.default, bool):
            return _boolean(value)
        number = min(max(_number(value), self.low), self.high)
        return int(number) if isinstance(self.default, int) else float(number)


MODEL_ORDERS = ("name", "date", "path name")
OPTIONS: Mapping[str, Option] = {
    "control_net_unit_count": Option(3, 1, 10),
    "control_net_models_path": Option(""),
    "control_net_models_sort_models_by": Option("name", choices=MODEL_ORDERS),
    "control_net_models_name_filter": Option(""),
    "control_net_modules_path": Option(""),
    "controlnet_download_weights": Option(default=False),
    "controlnet_trusted_files": Option(""),
    "controlnet_clip_detector_on_cpu": Option(default=False),
    "controlnet_model_cache_gib": Option(6, 0, 1024),
    "controlnet_device_cache_gib": Option(0.0, 0, 1024),
    "controlnet_pinned_memory": Option(default=True),
    "controlnet_side_stream": Option(default=False),
    "controlnet_stream_blocks": Option(default=False),
    "controlnet_reuse_control": Option(0.0, 0, 1),
    "control_net_inpaint_blur_sigma": Option(7, 0, 64),
    "control_net_no_detectmap": Option(default=False),
    "control_net_detectmap_autosaving": Option(default=False),
    "control_net_detectedmap_dir": Option("detected_maps"),
    "controlnet_measure": Option(default=False),
    "controlnet_measure_sort": Option(default=False),
    "controlnet_measure_maps": Option(default=False),
    "controlnet_measure_opacity": Option(0.7, 0, 1),
    "controlnet_show_batch_images_in_ui": Option(default=False),
    "controlnet_increment_seed_during_batch": Option(default=False),
    "controlnet_allow_training": Option(default=False),
    "control_net_allow_script_control": Option(default=False),
    "control_net_sync_field_args": Option(default=True),
    "controlnet_ignore_noninpaint_mask": Option(default=False),
    "controlnet_control_type_dropdown": Option(default=False),
    "controlnet_disable_openpose_edit": Option(default=False),
    "controlnet_input_thumbnail": Option(default=True),
    "controlnet_legacy_sdxl_ramp": Option(default=False),
}


class Settings:
    """Reads options: `read(key)` is the host's own value, MISSING where it has none. Never raises for a value."""

    def __init__(self, read: Callable[[str], object]) -> None:
        self._read = read
        self._said: set[str] = set()

    def __call__(self, key: str, default: Any = None) -> Any:
        """The option's value, in its type. `default` is what callers expect; the table's is what counts."""
        del default
        value, problem = self._value(key)
        if problem and problem not in self._said:
            self._said.add(problem)
            log.warning("%s", problem)
        return value

    def problems(self) -> list[str]:
        """A sentence for each option whose value is not used as it is."""
        return [problem for key in OPTIONS if (problem := self._value(key)[1])]

    def _value(self, key: str) -> tuple[Any, str]:
        option = OPTIONS[key]
        given = self._read(key)
        if given is MISSING:
            return option.default, ""
        try:
            value = option.read(given)
        except ValueError:
            value = option.default
        plain = isinstance(given, (int, float, str)) and isinstance(given, bool) == isinstance(value, bool)
        if plain and value == given:
            return value, ""
        shown = _shown(given)
        return value, f"the setting {key} is {shown} instead of {option.wanted}; {value!r} is used"


def _boolean(value: object) -> bool:
    text = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if text not in _TRUE | _FALSE:
        raise ValueError
    return text in _TRUE


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    try:
        number = float(value)
    except OverflowError:
        raise ValueError from None
    if not math.isfinite(number):
        raise ValueError
    return number


def _shown(value: object) -> str:
    """The value in a few characters, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (an object of somebody else's, or a number too long to print)
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:59]}…"
