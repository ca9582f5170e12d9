"""Fields of units that an axis of a grid or another script's attributes decide, instead of panel and request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from .legacy import SPELLINGS, key_name, known_keys

REMOTE: Mapping[str, str] = {
    "control_net_enabled": "enabled",
    "control_net_module": "preprocessor",
    "control_net_model": "model",
    "control_net_weight": "weight",
    "control_net_image": "image",
    "control_net_resize_mode": "resize_mode",
    "control_net_lowvram": "low_vram",
    "control_net_pres": "resolution",
    "control_net_pthr_a": "threshold_a",
    "control_net_pthr_b": "threshold_b",
    "control_net_guidance_start": "guidance_start",
    "control_net_guidance_end": "guidance_end",
    "control_net_guidance_strength": "guidance_end",
    "control_net_control_mode": "control_mode",
    "control_net_pixel_perfect": "pixel_perfect",
}
"""sd-webui-controlnet's attributes of a processing object -> our field; a later one wins."""


class Overrides:
    """`axes`: (unit or None for all, field) -> value. `remote`: attribute of REMOTE -> value, or a list by unit."""

    def __init__(self, axes: Mapping[tuple[int | None, str], object], remote: Mapping[str, object]) -> None:
        self._axes = axes
        self._remote = remote

    def of(self, index: int) -> dict[str, object]:
        """The fields that are decided for a unit."""
        fields: dict[str, object] = {}
        for name, field in REMOTE.items():
            value = self._remote.get(name)
            if isinstance(value, (list, tuple)) and field != "image":
                each = cast("Sequence[object]", value)
                value = each[index] if index < len(each) else None
            elif field == "enabled" and index:
                value = None  # a single value is the first unit's, as in the peer
            if value is not None:
                fields[field] = value
        for (unit, field), value in self._axes.items():
            if unit in (None, index):
                fields[field] = value
        return fields

    def apply(self, unit: object, index: int) -> object:
        """A unit in any form -> a mapping in which the decided fields stand instead of its own."""
        fields = self.of(index)
        if not fields:
            return unit
        given: dict[str, Any]
        if isinstance(unit, Mapping):
            given = {str(key): value for key, value in cast("Mapping[object, Any]", unit).items()}
        else:
            given = {name: getattr(unit, name) for name in known_keys() if hasattr(unit, name)}
        names = {name for field in fields for name in SPELLINGS[field]}
        return {**{key: value for key, value in given.items() if key_name(key) not in names}, **fields}


NONE = Overrides({}, {})
