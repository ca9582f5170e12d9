"""What the user is told when a unit cannot take effect.

Every error names the unit, the field, what was found and what to do: hosts show `str(error)` as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sized
from enum import Enum
from pathlib import PurePath
from typing import Any, cast

_OBJECT = re.compile(r"<[^<>]*\bat 0x[0-9a-fA-F]+>")
"""An object's repr in somebody else's message; its address says nothing to the user."""


class ControlNetError(Exception):
    """A unit, a file or the host stands in the way of a controlled picture.

    `unit` counts from 0, as in the infotext's `ControlNet 0`. `found` (a sentence, or the value itself) and `remedy`
    complete the sentence for the user. `status_code` and `detail` are what hosts answer over HTTP: they look for them
    in the instance.
    """

    status = 422
    """Of the answer over HTTP; 422: the request asks for what cannot be done."""

    def __init__(
        self, problem: str, *, unit: int | None = None, field: str | None = None, found: object = None, remedy: str = ""
    ) -> None:
        Exception.__init__(self, problem)  # a host's own exception may be the next class (see hosts/webui/refusal.py)
        self.problem = problem
        self.unit = unit
        self.field = field
        self.found = found
        self.remedy = remedy
        self.status_code = self.status
        self.detail = str(self)

    def for_unit(self, unit: int, field: str | None = None) -> ControlNetError:
        """The same error, said of `unit` (and `field`) unless it already names its own."""
        return type(self)(
            self.problem,
            unit=self.unit if self.unit is not None else unit,
            field=self.field or field,
            found=self.found,
            remedy=self.remedy,
        )

    def without_unit(self) -> ControlNetError:
        """The same error where there are no units."""
        return type(self)(self.problem, field=self.field, found=self.found, remedy=self.remedy)

    def __str__(self) -> str:
        place = "ControlNet" if self.unit is None else f"ControlNet unit {self.unit}"
        if self.field:
            place += f", {self.field}"
        parts = [f"{place}: {_sentence(self.problem)}"]
        if self.found is not None:
            parts.append(f"Found: {_sentence(shown(self.found))}")
        if self.remedy:
            parts.append(f"What to do: {_sentence(self.remedy)}")
        return plain_text(" ".join(parts))


class UnitError(ControlNetError):
    """A field of a unit has a value that cannot be used."""


class ModelFileError(ControlNetError):
    """A control model's file is missing, damaged, unsafe or of an unknown kind."""


class BaseModelError(ControlNetError):
    """A control model does not fit the checkpoint in use."""


class PreprocessorError(ControlNetError):
    """A preprocessor is unknown, unavailable or cannot do what was asked."""


class PreprocessorFailure(PreprocessorError):
    """A preprocessor ended with an error that it does not explain."""

    status = 500


class HostError(ControlNetError):
    """The WebUI is in a state in which control cannot be added."""


class DeviceMemoryError(HostError):
    """The device has not the memory that a unit needs for the picture that was asked for."""


class UnexpectedError(HostError):
    """Something failed that nobody foresaw; its cause is the exception."""

    status = 500


def plain_text(text: str, limit: int = 2000) -> str:
    """`text` on one line, short, and such that it can be written as UTF-8: JSON can carry halves of letters."""
    halves = ("\ud800", "\udfff")  # which UTF-8 shows as question marks
    written = text[: 4 * limit]
    printable = "".join(x if x.isprintable() or halves[0] <= x <= halves[1] else " " for x in written)
    written = printable.encode("utf-8", "replace").decode("utf-8")
    return _short(_OBJECT.sub("an object", " ".join(written.split())), limit)


def shown(value: object, limit: int = 300) -> str:
    """A caller's value in words: short texts and numbers as they are, everything else by its kind and size."""
    if isinstance(value, Enum):
        return shown(value.value, limit)
    if isinstance(value, (str, PurePath)):
        return plain_text(str(value), limit)
    if isinstance(value, BaseException):
        return plain_text(f"{type(value).__name__}: {value}", limit)
    if value is None or isinstance(value, (bool, float, complex)):
        return str(value)
    if isinstance(value, int):
        digits = int(value.bit_length() * math.log10(2)) + 1
        return str(value) if digits <= 40 else f"a whole number of about {digits} digits"
    return _shown_object(value)


def _shown_object(value: Any) -> str:
    """Never its repr: that may be long, hold a picture's numbers or an address."""
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    if isinstance(value, Mapping):
        keys = list(cast("Mapping[object, object]", value))
        named = ", ".join(shown(key, 40) for key in keys[:5]) or "nothing in it"
        return f"an object with {named}" + (", …" if len(keys) > 5 else "")
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"a list of {len(cast(Sized, value))}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array of the shape {tuple(value.shape)} and type {value.dtype}" if value.shape else f"{value}"
    return f"an object of the type {type(value).__name__}"


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."
