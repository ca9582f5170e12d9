"""A unit's settings kept under a name: JSON files of ours, and sd-webui-controlnet's and reForge's `<name>.txt`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

from ..core.errors import UnitError
from ..core.infotext import format_unit, parse_text
from ..core.units import ControlNetUnit

FORMAT = "controlnet unit"
_NAME = re.compile(r"[^\\/:*?\"<>|\x00-\x1f]{1,80}")


class Presets:
    """The presets of a folder. Pictures are no part of a preset."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """In alphabetical order; ours come before a peer's text of the same name."""
        if not self._folder.is_dir():
            return []
        return sorted({path.stem for path in self._folder.iterdir() if path.suffix in (".json", ".txt")})

    def save(self, name: str, unit: ControlNetUnit) -> None:
        """Keeps the unit's settings; a preset of this name is replaced. Raises UnitError."""
        path = self._path(name, ".json")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(dumps(unit), "utf-8")
        except OSError as error:
            raise UnitError("the preset cannot be saved", field="preset", found=str(error)) from error

    def load(self, name: str) -> str:
        """The preset as the text of a unit (see core.infotext). Raises UnitError."""
        path = next((path for suffix in (".json", ".txt") if (path := self._path(name, suffix)).is_file()), None)
        if path is None:
            raise UnitError("there is no such preset", field="preset", found=name, remedy="choose one of the list")
        return loads(path.read_text("utf-8", "replace"))

    def delete(self, name: str) -> None:
        """Removes the files of a preset. Raises UnitError where there is none."""
        files = [path for suffix in (".json", ".txt") if (path := self._path(name, suffix)).is_file()]
        if not files:
            raise UnitError("there is no such preset", field="preset", found=name, remedy="choose one of the list")
        for path in files:
            path.unlink()

    def _path(self, name: str, suffix: str) -> Path:
        clean = name.strip()
        if not _NAME.fullmatch(clean) or clean.startswith("."):
            raise UnitError(
                "this cannot be the name of a preset",
                field="preset",
                found=name,
                remedy="use letters, digits, spaces and - _ ( )",
            )
        return self._folder / f"{clean}{suffix}"


def dumps(unit: ControlNetUnit) -> str:
    """A preset's JSON: the names and values of the infotext."""
    return json.dumps({"format": FORMAT, "version": 1, "unit": parse_text(format_unit(unit))}, indent=2)


def loads(text: str) -> str:
    """The content of a preset's file, JSON or a peer's text -> the text of a unit. Raises UnitError."""
    if not text.lstrip().startswith("{"):
        if not parse_text(text):
            raise _foreign(text)
        return text.strip()
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise _foreign(text) from error
    unit = cast("dict[str, object]", content).get("unit") if isinstance(content, dict) else None
    if not isinstance(unit, dict):
        raise _foreign(text)
    fields = cast("dict[str, object]", unit)
    return ", ".join(f"{key.replace('_', ' ').title()}: {_quoted(str(value))}" for key, value in fields.items())


def _quoted(value: str) -> str:
    for mark, code in (("%", "%25"), (",", "%2C"), (":", "%3A"), ("\n", "%0A")):
        value = value.replace(mark, code)
    return value


def _foreign(text: str) -> UnitError:
    """Says nothing of what is in the file: it may be any."""
    found = f"{len(text)} characters that are neither JSON of this page nor the infotext of a unit"
    return UnitError("this is no preset of a unit", field="preset", found=found, remedy="choose a file saved here")
