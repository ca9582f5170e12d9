"""Which version of a file lies under its name."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_SAMPLE = 1 << 16
_SAMPLES = 64
FileVersion = tuple[int, int, int, int]


def file_version(path: Path) -> FileVersion:
    """Changes whenever the file's content does, also where a copy keeps size and date. Raises OSError."""
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_ino


def beside(path: Path) -> tuple[Path, Path]:
    """The files that may say how a file's weights are to be used: cldm's `.yaml` and the folder's `config.json`."""
    return path.with_suffix(".yaml"), path.with_name("config.json")


def versions_in_use(path: Path) -> tuple[FileVersion | None, ...]:
    """Those of the file and of what lies beside it; the first is None where the file is gone."""
    return tuple(_version(each) for each in (path, *beside(path)))


def same_content(one: Path, other: Path) -> bool:
    """Whether two files of one suffix are copies: equal in size, in samples spread over them and in what lies beside.

    Raises OSError.
    """
    if one.samefile(other):
        return True
    size = one.stat().st_size
    if size != other.stat().st_size or [_text(path) for path in beside(one)] != [_text(path) for path in beside(other)]:
        return False
    step = max(size // _SAMPLES, _SAMPLE)
    with one.open("rb") as first, other.open("rb") as second:
        return all(_sample(first, place) == _sample(second, place) for place in range(0, size, step))


def _version(path: Path) -> FileVersion | None:
    try:
        return file_version(path)
    except OSError:
        return None


def _text(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _sample(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(_SAMPLE)
