"""The files of a folder of models, whatever else lies there: links, loops, pipes, folders that may not be read."""

from __future__ import annotations

import os
import re
import stat
import time
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_BROKEN = "it is a link to nothing, or to itself"
_TICK = 2_000_000_000  # ns; the coarsest clock of a file system (FAT)
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Skipped:
    """A file or folder that could not be taken, and why, in words for the user."""

    path: str
    reason: str


@dataclass(eq=False)
class Scan:
    """What a walk over folders found: `files` that can be read, and what was `skipped`.

    `folders` are those that were read, with the time of their last change.
    """

    files: list[Path] = field(default_factory=list[Path])
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    folders: dict[Path, int] = field(default_factory=dict[Path, int])
    _seen: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])

    def enter(self, folder: Path, *, optional: bool) -> bool:
        """Whether the folder is to be read now: it is there, and was not read before. `optional`: it may be missing."""
        try:
            facts = folder.stat()
        except (OSError, ValueError) as error:  # ValueError: a NUL in a path
            self.folders[folder] = 0
            if not (optional and isinstance(error, FileNotFoundError)):
                self.skip(folder, error)
            return False
        if not stat.S_ISDIR(facts.st_mode):
            self.skip(folder, "it is no folder")
            return False
        identity = (facts.st_dev, facts.st_ino)
        if identity in self._seen:
            return False
        self._seen.add(identity)
        young = time.time_ns() - facts.st_mtime_ns < _TICK  # it may change again without another time
        self.folders[folder] = 0 if young else facts.st_mtime_ns
        return True

    def skip(self, path: Path, reason: object) -> None:
        """Remembers what was passed over. An OSError gives its own reason."""
        text = (reason.strerror or str(reason)) if isinstance(reason, OSError) else str(reason)
        self.skipped.append(Skipped(printable(str(path)), text))


def scan(folder: Path, suffixes: Collection[str], found: Scan | None = None) -> Scan:
    """Every file below `folder` whose suffix is among `suffixes` (lower case), sorted by path.

    Links are followed; a folder is read once, however many links lead to it, so that loops end. Never raises for what
    lies in a folder. `found` is continued where it is given.
    """
    found = Scan() if found is None else found
    waiting, linked = deque([folder]), deque[Path]()
    files: list[Path] = []
    while waiting or linked:  # folders before links to them, so that a file is known by its own path
        here = waiting.popleft() if waiting else linked.popleft()
        if not found.enter(here, optional=here == folder):
            continue
        for entry in _entries(here, found):
            path = here / entry.name
            if _is_folder(entry, path, found):
                (linked if entry.is_symlink() else waiting).append(path)
            if path.suffix.lower() in suffixes:
                files += [path] if _is_model(path, found) else []
            elif entry.is_symlink() and not os.path.exists(path):
                found.skip(path, _BROKEN)
    found.files += sorted(files)
    return found


def changed(folders: dict[Path, int]) -> bool:
    """Whether anything was added to or removed from one of the folders since they were read."""
    return any(_time(folder) != time for folder, time in folders.items())


def printable(text: str) -> str:
    """A path as it can be shown and sent: what is no Unicode becomes question marks."""
    return _SURROGATES.sub("?", text)


def _entries(folder: Path, found: Scan) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        found.skip(folder, error)


def _is_folder(entry: os.DirEntry[str], path: Path, found: Scan) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if not entry.is_symlink():  # of broken links `scan` speaks
            found.skip(path, error)
        return False


def _is_model(path: Path, found: Scan) -> bool:
    """Whether the file can be listed; what cannot has its reason among the skipped."""
    if path.name.startswith("._"):
        return False  # what macOS writes beside each file on foreign disks
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            str(path).encode("utf-8")
            return True
    except UnicodeEncodeError:
        found.skip(path, "its name is not UTF-8; rename it")
        return False
    except OSError as error:
        found.skip(path, _BROKEN if os.path.islink(path) else error)
        return False
    found.skip(path, "it is a folder, not a file" if stat.S_ISDIR(mode) else "it is no file but a pipe or a device")
    return False


def _time(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except (OSError, ValueError):
        return 0
