"""A unit's settings kept under a name: JSON files of ours, and sd-webui-controlnet's and reForge's `<name>.txt`."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import cast

from ..core.errors import UnitError
from ..core.files import put_aside, write_whole
from ..core.infotext import format_unit, parse_text
from ..core.units import ControlNetUnit

log = logging.getLogger("ControlNet")

FORMAT = "controlnet unit"
_NAME = re.compile(r"[^\\/:*?\"<>|\x00-\x1f\ud800-\udfff]{1,80}")


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
            write_whole(path, dumps(unit))
        except OSError as error:
            raise UnitError("the preset cannot be saved", field="preset", found=str(error)) from error

    def load(self, name: str) -> str:
        """The preset as the text of a unit (see core.infotext).

        Raises UnitError. A file of ours that is damaged is put aside, under a name that is no preset's.
        """
        path = next((path for suffix in (".json", ".txt") if (path := self._path(name, suffix)).is_file()), None)
        if path is None:
            raise UnitError("there is no such preset", field="preset", found=name, remedy="choose one of the list")
        try:
            text = path.read_text("utf-8")
            if path.suffix == ".json":
                _parsed(text)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UnitError("the preset cannot be read", field="preset", found=f"{path.name}: {reason}") from error
        except ValueError as error:  # neither UTF-8 nor JSON
            raise _put_aside(path) from error
        return loads(text)

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
        content = _parsed(text)
    except ValueError as error:
        raise _foreign(text) from error
    unit = cast("dict[str, object]", content).get("unit") if isinstance(content, dict) else None
    if not isinstance(unit, dict):
        raise _foreign(text)
    fields = cast("dict[str, object]", unit)
    wrong = [key for key, value in fields.items() if not isinstance(value, (str, int, float))]
    if wrong:
        raise UnitError(
            "the preset has values that no setting can have",
            field="preset",
            found=", ".join(f"{key} as {type(fields[key]).__name__}" for key in wrong[:5]),
            remedy="write them as text, or delete the preset",
        )
    return ", ".join(f"{key.replace('_', ' ').title()}: {_quoted(str(value))}" for key, value in fields.items())


def _parsed(text: str) -> object:
    """Raises ValueError for what is no JSON, or nested so deeply that it is no preset of anybody's."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _put_aside(path: Path) -> UnitError:
    """Leaves nothing under the name of a damaged file, and says where it is."""
    aside = put_aside(path)
    place = "it is still there" if aside is None else f"it is kept as {aside.name}"
    log.warning("The preset %s is damaged; %s.", path, place)
    return UnitError(
        f'the preset "{path.stem}" is damaged',
        field="preset",
        found=f"no complete JSON in {path.name}; {place}",
        remedy="save the preset anew, or repair the file by hand",
    )


def _quoted(value: str) -> str:
    for mark, code in (("%", "%25"), (",", "%2C"), (":", "%3A"), ("\n", "%0A")):
        value = value.replace(mark, code)
    return value


def _foreign(text: str) -> UnitError:
    """Says nothing of what is in the file: it may be any."""
    found = f"{len(text)} characters that are neither JSON of this page nor the infotext of a unit"
    return UnitError("this is no preset of a unit", field="preset", found=found, remedy="choose a file saved here")
