"""The control models on disk."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import ModelFileError
from ..core.natural import natural_key
from ..loading.reader import SUFFIXES, legacy_hash
from ..loading.version import FileVersion, file_version, same_content
from .model_names import display_names, matches, parse_name
from .scan import Scan, Skipped, changed, printable, scan

log = logging.getLogger("ControlNet")

NO_MODEL = "None"
_SHOWN = 12


@dataclass(frozen=True)
class ModelEntry:
    """A file, shown as `stem [hash8]` with A1111's short hash, or `folder/stem [hash8]` where stems are alike."""

    name: str
    path: Path
    hash8: str
    modified: float = 0.0
    version: FileVersion = (0, 0, 0, 0)


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
    """Files of the model folders, found recursively, links included.

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
        self._read: dict[Path, int] = {}
        self._hashes: dict[tuple[Path, FileVersion], str] = {}
        self.skipped: Sequence[Skipped] = ()
        """What the last scan passed over, with the reasons."""

    def refresh(self) -> None:
        """Scans the folders again. What cannot be read is skipped, said in the log once, and kept in `skipped`."""
        found = Scan()
        for folder in self._folders():
            scan(folder, SUFFIXES, found)
        wanted = [path for path in found.files if path not in self._exclude and path.stem != NO_MODEL]
        read = [entry for path in wanted if (entry := self._entry(path, found))]
        names = display_names({entry.path: entry.hash8 for entry in read})
        entries = sorted((replace(entry, name=names[entry.path]) for entry in read), key=ORDERS["name"])
        self._entries = {entry.name: entry for entry in entries}
        self._read = found.folders
        for skipped in found.skipped:
            if skipped not in self.skipped:
                log.warning("not listed: %s: %s", skipped.path, skipped.reason)
        self.skipped = tuple(found.skipped)

    def names(self) -> list[str]:
        """Display names as the listing wants them, without "None"."""
        return [entry.name for entry in self.entries()]

    def entries(self) -> list[ModelEntry]:
        """What `names` names."""
        return self._listing().apply(self._known().values())

    def name_of(self, path: Path) -> str:
        """The display name of a file; its stem where it is not listed."""
        return next((entry.name for entry in self._known().values() if entry.path == path), path.stem)

    def find(self, name: str) -> ModelEntry:
        """The model of a display name; else of a file name in any case; else of a name that contains it.

        `folder/name` says which of several files is meant, and so does the hash in brackets, which must agree: another
        file of the same name is another model. The folders are read again where one has changed, and where the file
        has: a name never stands for what lay there before. Raises ModelFileError for a name that is not known, or
        that fits several files.
        """
        wanted = name.strip().strip('"')
        entry = None if self._entries is None or changed(self._read) else self._lookup(wanted)
        if entry is None or not _is_current(entry):
            self.refresh()
            entry = self._lookup(wanted)
        if entry is None:
            raise self._not_found(wanted)
        return entry

    def _lookup(self, wanted: str) -> ModelEntry | None:
        entries = self._known()
        if wanted in entries:
            return entries[wanted]
        text, hash8 = parse_name(wanted)
        every = list(entries.values())
        fitting = [entry for entry in every if matches(wanted, entry.path)]
        if not fitting and hash8:
            of_hash = [entry for entry in every if entry.hash8 == hash8]
            fitting = [entry for entry in of_hash if not text or matches(text, entry.path)]
            fitting = fitting or [entry for entry in of_hash if matches(text.rpartition("/")[2], entry.path)]
        if not fitting and wanted:
            fitting = [entry for entry in every if wanted.lower() in entry.name.lower()]
        if len(fitting) > 1 and not _are_one(fitting):
            raise _ambiguous(wanted, fitting)
        return fitting[0] if fitting else None

    def _not_found(self, wanted: str) -> ModelFileError:
        text, hash8 = parse_name(wanted)
        same = [entry.name for entry in self._known().values() if hash8 and matches(text, entry.path)]
        close = same or difflib.get_close_matches(wanted, list(self._known()), n=3, cutoff=0.4)
        folders = ", ".join(printable(str(folder)) for folder in self._folders())
        other = f"a file of that name with other content: {', '.join(same)}"
        return ModelFileError(
            f'the model "{wanted}" was not found',
            field="model",
            found=other if same else f"nothing of that name in {folders}",
            remedy=f"choose one of: {', '.join(close)}" if close else "put the file there and refresh the model list",
        )

    def _known(self) -> dict[str, ModelEntry]:
        if self._entries is None:
            self.refresh()
        return self._entries or {}

    def _entry(self, path: Path, found: Scan) -> ModelEntry | None:
        """The file with its hash; None where it cannot be read."""
        try:
            version = file_version(path)
            key = (path, version)
            if key not in self._hashes:
                self._hashes[key] = legacy_hash(path)
            return ModelEntry("", path, self._hashes[key], version[0] / 1e9, version)
        except OSError as error:
            found.skip(path, error)
            return None


def _is_current(entry: ModelEntry) -> bool:
    """Whether the file is still the one whose hash the entry has."""
    try:
        return file_version(entry.path) == entry.version
    except OSError:
        return False


def _are_one(entries: Sequence[ModelEntry]) -> bool:
    """Whether the files are copies of one model, so that it does not matter which is taken."""
    first, *others = entries
    try:
        return all(other.hash8 == first.hash8 and same_content(first.path, other.path) for other in others)
    except OSError:
        return False


def _ambiguous(wanted: str, entries: Sequence[ModelEntry]) -> ModelFileError:
    names = [entry.name for entry in entries]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ModelFileError(
        f'the model name "{wanted}" fits several files',
        field="model",
        found=", ".join(names[:_SHOWN]) + more,
        remedy="give one of these names in full",
    )


ORDERS: Mapping[str, Callable[[ModelEntry], Any]] = {
    "name": lambda entry: natural_key(entry.name),
    "date": lambda entry: (-entry.modified, natural_key(entry.name)),
    "path name": lambda entry: natural_key(str(entry.path)),
}
"""Sort keys by the peers' names of them; "date" has the newest first."""
