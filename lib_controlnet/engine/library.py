"""The control models on disk."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ModelFileError
from ..loading.reader import legacy_hash

EXTENSIONS = frozenset({".pt", ".pth", ".ckpt", ".safetensors", ".bin"})
NO_MODEL = "None"


@dataclass(frozen=True)
class ModelEntry:
    """A file, shown as `stem [hash8]` with A1111's short hash."""

    name: str
    path: Path
    hash8: str
    modified: float = 0.0


@dataclass(frozen=True)
class Listing:
    """How lists show the models: in which of `ORDERS`, and only names that contain a text in any case."""

    order: str = "name"
    contains: str = ""

    def apply(self, entries: Iterable[ModelEntry]) -> list[ModelEntry]:
        """The entries to show, in order."""
        wanted = self.contains.strip().lower()
        shown = (entry for entry in entries if wanted in entry.name.lower())
        return sorted(shown, key=ORDERS.get(self.order, ORDERS["name"]))


class ModelLibrary:
    """Files of the model folders, found recursively; the first folder wins where two files show the same name.

    `exclude` names files that are no control models though they lie there (the shipped demo checkpoint). `listing`
    shapes what `names` gives; `find` finds every file.
    """

    def __init__(
        self,
        folders: Callable[[], Iterable[Path]],
        exclude: Collection[Path] = (),
        listing: Callable[[], Listing] = Listing,
    ) -> None:
        self._folders = folders
        self._listing = listing
        self._exclude = frozenset(exclude)
        self._entries: dict[str, ModelEntry] | None = None
        self._hashes: dict[tuple[Path, int, int], str] = {}

    def refresh(self) -> None:
        """Scans the folders again."""
        entries: dict[str, ModelEntry] = {}
        for folder in self._folders():
            for path in _model_files(folder):
                if path in self._exclude:
                    continue
                hash8 = self._hash(path)
                name = f"{path.stem} [{hash8}]"
                entries.setdefault(name, ModelEntry(name, path, hash8, path.stat().st_mtime))
        self._entries = dict(sorted(entries.items(), key=lambda item: _natural(item[0])))

    def names(self) -> list[str]:
        """Display names as the listing wants them, without "None"."""
        return [entry.name for entry in self._listing().apply(self._known().values())]

    def find(self, name: str) -> ModelEntry:
        """The model of a display name; else of a file name in any case; else the shortest name that contains it.

        A hash in the name must agree: another file of the same name is another model.

        A name that is not known makes the folders be read again before it is refused with ModelFileError.
        """
        wanted = name.strip().strip('"')
        for attempt in range(2):
            if attempt:
                self.refresh()
            entry = self._lookup(wanted)
            if entry is not None:
                return entry
        close = difflib.get_close_matches(wanted, list(self._known()), n=3, cutoff=0.4)
        folders = ", ".join(str(folder) for folder in self._folders())
        raise ModelFileError(
            f'the model "{wanted}" was not found',
            field="model",
            found=f"nothing of that name in {folders}",
            remedy=f"choose one of: {', '.join(close)}" if close else "put the file there and refresh the model list",
        )

    def _lookup(self, wanted: str) -> ModelEntry | None:
        entries = self._known()
        if wanted in entries:
            return entries[wanted]
        lower = wanted.lower()
        stems = [entry for entry in entries.values() if entry.path.stem.lower() == lower]
        containing = [entry for entry in entries.values() if lower and lower in entry.name.lower()]
        return min(stems or containing, key=lambda entry: len(entry.name), default=None)

    def _known(self) -> dict[str, ModelEntry]:
        if self._entries is None:
            self.refresh()
        return self._entries or {}

    def _hash(self, path: Path) -> str:
        stat = path.stat()
        key = (path, stat.st_mtime_ns, stat.st_size)
        if key not in self._hashes:
            self._hashes[key] = legacy_hash(path)
        return self._hashes[key]


def _model_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    return sorted(path for path in files if path.stem != NO_MODEL)


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key in which "v2" stands before "v10"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text.lower()) if part]


ORDERS: Mapping[str, Callable[[ModelEntry], Any]] = {
    "name": lambda entry: _natural(entry.name),
    "date": lambda entry: (-entry.modified, _natural(entry.name)),
    "path name": lambda entry: _natural(str(entry.path)),
}
"""Sort keys by the peers' names of them; "date" has the newest first."""
