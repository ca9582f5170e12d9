"""What the user is told when a unit cannot take effect.

Every error names the unit, the field, what was found and what to do: hosts show `str(error)` as it is.
"""

from __future__ import annotations

from typing import Any


class ControlNetError(Exception):
    """A unit, a file or the host stands in the way of a controlled picture.

    `unit` counts from 0, as in the infotext's `ControlNet 0`. `found` and `remedy` complete the sentence for the user.
    """

    def __init__(
        self, problem: str, *, unit: int | None = None, field: str | None = None, found: object = None, remedy: str = ""
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.unit = unit
        self.field = field
        self.found = found
        self.remedy = remedy

    def for_unit(self, unit: int, field: str | None = None) -> ControlNetError:
        """The same error, said of `unit` (and `field`) unless it already names its own."""
        return type(self)(
            self.problem,
            unit=self.unit if self.unit is not None else unit,
            field=self.field or field,
            found=self.found,
            remedy=self.remedy,
        )

    def __str__(self) -> str:
        place = "ControlNet" if self.unit is None else f"ControlNet unit {self.unit}"
        if self.field:
            place += f", {self.field}"
        parts = [f"{place}: {_sentence(self.problem)}"]
        if self.found is not None:
            parts.append(f"Found: {_sentence(_short(self.found))}")
        if self.remedy:
            parts.append(f"What to do: {_sentence(self.remedy)}")
        return " ".join(parts)


class UnitError(ControlNetError):
    """A field of a unit has a value that cannot be used."""


class ModelFileError(ControlNetError):
    """A control model's file is missing, damaged, unsafe or of an unknown kind."""


class BaseModelError(ControlNetError):
    """A control model does not fit the checkpoint in use."""


class PreprocessorError(ControlNetError):
    """A preprocessor is unknown, unavailable or failed."""


class HostError(ControlNetError):
    """The WebUI is in a state in which control cannot be added."""


def plain_text(text: str, limit: int = 1000) -> str:
    """`text` on one line, short, and such that it can be written as UTF-8: JSON can carry halves of letters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return _short(" ".join(printable.encode("utf-8", "replace").decode("utf-8").split()), limit)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."


def _short(value: Any, limit: int = 300) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
