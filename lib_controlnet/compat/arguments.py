"""Our script's arguments as unit objects, for whoever else reads them, and read back as what they were.

The peers have one unit object an argument, and other extensions read the attributes of every element of our slice.
Ours are widgets' values with free slots before them: as soon as a processing object has its arguments, each is put
into an object that answers a unit's attributes. What nobody changes is read back as it was given.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..core.arguments import PANEL, SLOTS, is_nothing, widget_mappings
from ..core.errors import ControlNetError
from ..core.frames import FIELD, FIELDS, Asked
from ..core.images import read_mask, read_rgb
from ..core.legacy import EMPTY_ONLY, GUESS_MODE, SPELLINGS, key_name, known_keys
from ..core.panel_options import is_options
from ..core.units import is_unit
from .unit import ControlNetUnit, shown_fields

_MEANT = frozenset((*known_keys(), *GUESS_MODE, *EMPTY_ONLY))


class ControlNetArgument(ControlNetUnit):
    """An argument under the attributes of a unit: the unit that a dict or the widgets ask for, or a disabled one.

    The class's name is read by others: ADetailer switches off every argument whose class is named like ControlNet.
    """

    __slots__ = ("_given", "_print")  # kept out of the attributes, which others copy and compare

    def __init__(self, **fields: Any) -> None:
        """As ControlNetUnit: what others make of it by its class is a unit like any other."""
        super().__init__(**fields)
        self._given: Any = {}
        self._print: Mapping[str, Any] = {}

    @classmethod
    def of(cls, given: Any, fields: Mapping[str, Any] | None = None) -> ControlNetArgument:
        """An argument's value under the attributes `fields`, or under those of a disabled unit."""
        argument = cls(enabled=False)
        vars(argument).update(fields or {})
        argument._given = given
        argument._print = _fingerprints(argument)
        return argument

    def value(self) -> Any:
        """What was given; where somebody changed an attribute, the unit as it is now."""
        changed = {
            key for key, item in _fingerprints(self).items() if key not in self._print or self._print[key] != item
        }
        if not changed:
            return self._given
        if changed & {"image", "mask"}:
            changed |= {"image", "mask"}  # one may lie in the other
        new = {key: vars(self)[key] for key in changed if vars(self).get(key) is not None}
        if new.get("animatediff_batch"):
            attributes = {key: vars(self).get(key) for key in FIELDS}
            new[FIELD] = Asked({key: item for key, item in attributes.items() if item is not None})
        if not _is_mapping_of_unit(self._given):
            return {"enabled": self.enabled, **new}
        names = {name for field in SPELLINGS.values() if changed & set(field) for name in field}
        return {**{key: item for key, item in self._given.items() if key_name(key) not in names}, **new}

    def is_unit(self) -> bool:
        """Whether it stands for a unit, and not for an empty place or a widget."""
        return _is_mapping_of_unit(self.value())


def plain_arguments(arguments: Sequence[Any]) -> list[Any]:
    """The arguments as they were given, with what others changed."""
    return [item.value() if isinstance(item, ControlNetArgument) else item for item in arguments]


def unit_arguments(arguments: Sequence[Any]) -> list[Any]:
    """As many arguments, all of them unit objects. Those that are unit objects already stay what they are.

    Without a unit among them they are the page's: each unit's widgets become one object, in the first places.
    """
    values = list(arguments)
    if not any(_is_given(item) for item in plain_arguments(values)):
        values = _of_page(values)
    return [item if _is_object(item) else ControlNetArgument.of(item, _fields(item)) for item in values]


def unit_of_widgets(fields: Mapping[str, Any]) -> ControlNetArgument:
    """The unit that a panel's widgets show; its picture in the form that other extensions expect of a page's unit."""
    shown = shown_fields(fields)
    image = shown.get("image")
    if image is not None:
        try:
            picture = read_rgb(image)
            mask = fields.get("mask")
            drawn = np.zeros_like(picture) if mask is None else read_rgb(read_mask(mask))
            shown.update(image={"image": picture, "mask": drawn}, mask=None)
        except ControlNetError:
            shown["image"] = image  # said, with its reason, when the job reads the unit
    return ControlNetArgument.of(fields, shown)


def show_units(p: Any, script: Any) -> Sequence[Any]:
    """Makes our script's arguments of a processing object unit objects, in place; returns them.

    What cannot be the panel's values stays as it is: reading it says why.
    """
    stored = "script_args_value" if hasattr(p, "script_args_value") else "script_args"
    everything = getattr(p, stored)
    if not isinstance(everything, (list, tuple, np.ndarray)):
        return ()
    values = cast("Sequence[Any]", everything)
    own = values[script.args_from : script.args_to]
    if all(_is_object(item) for item in own):
        return own
    shown = unit_arguments(own)
    if isinstance(values, list):
        values[script.args_from : script.args_to] = shown
    else:
        kind = tuple if isinstance(values, tuple) else list
        setattr(p, stored, kind([*values[: script.args_from], *shown, *values[script.args_to :]]))
    return shown


def _of_page(values: list[Any]) -> list[Any]:
    given = plain_arguments(values)
    if not all(is_nothing(item) for item in given[:SLOTS]):
        return values
    try:
        units = widget_mappings(given)
    except ControlNetError:
        return values
    options = dict(zip(PANEL, given[SLOTS:], strict=False))
    empty = [None] * (len(values) - len(units) - 1)
    return [*(unit_of_widgets(fields) for fields in units), options, *empty] if units else values


def _fields(item: Any) -> Mapping[str, Any] | None:
    return shown_fields(item) if _is_mapping_of_unit(item) else None


def _is_given(item: Any) -> bool:
    return item is not None and is_unit(item) and not is_options(item)


def _is_object(item: Any) -> bool:
    return not isinstance(item, Mapping) and is_unit(item)


def _is_mapping_of_unit(item: Any) -> bool:
    return isinstance(item, Mapping) and not is_options(item)


def _fingerprints(unit: ControlNetUnit) -> dict[str, Any]:
    """Attribute -> something to compare it by, of those that mean something."""
    return {key: _fingerprint(item) for key, item in vars(unit).items() if key in _MEANT}


_LEVELS = 6
"""A picture in a list of objects lies three levels deep; a request may be nested deeper than Python recurses."""


def _fingerprint(value: Any, levels: int = _LEVELS) -> Any:
    """What tells a value from what it was, also where it was changed in place, down to so many levels."""
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(cast("np.ndarray[Any, Any]", value))
        return array.shape, str(array.dtype), zlib.crc32(array.tobytes())
    if levels and isinstance(value, Mapping):
        return {key: _fingerprint(item, levels - 1) for key, item in cast("Mapping[Any, Any]", value).items()}
    if levels and isinstance(value, (list, tuple)):
        return [_fingerprint(item, levels - 1) for item in cast("Sequence[Any]", value)]
    plain = value is None or isinstance(value, (str, bool, int, float, Enum, Path))
    return value if plain else id(value)
