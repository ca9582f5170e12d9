"""WebDataset shards: tar files in which members of one name belong together."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from .config import DataOptions
from .examples import EncodedPicture, Example, Reading, captions_of
from .parts import Part
from .pictures import SUFFIXES

_PICTURE = ("", "target", "image", "picture", "original")
_HINT = ("hint", "source", "conditioning", "conditioning_image", "cond", "control", "control_image")
_TEXT = ("txt", "caption", "text", "cap", "prompt")
_JSON = ("caption", "text", "prompt", "captions")


def webdataset(options: DataOptions) -> Iterator[Part]:
    """`0001.jpg`, `0001.hint.png` (or control, conditioning, source), `0001.txt` (or `0001.json` with a caption) in
    `*.tar` or `*.tar.gz`. Shards are read by place, not as a stream, so the order of a training can be repeated and
    resumed; gzipped ones are unpacked into a temporary file, since nothing in them has a place.

    Without a map in the shards the preprocessor makes it. Each shard is a part."""
    folder = options.folder
    shards = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if _is_shard(p))
    if not shards:
        yield Part(lambda: Reading(problems=[f'there is no .tar or .tar.gz in "{folder.name}"']))
    for path in shards:
        yield Part(partial(_pairs, path, options.preprocessor != "none"))


def _pairs(path: Path, makes_maps: bool) -> Reading:
    """Those in one shard."""
    found = Reading()
    try:
        shard = _Shard(path)
        groups = _members(shard.members())
    except (OSError, EOFError, tarfile.TarError) as error:
        found.problems.append(f'the shard "{path.name}" cannot be read ({error})')
        return found
    for key, parts in groups.items():
        _add(found, shard, key, parts, makes_maps)
    return found


def _is_shard(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith((".tar", ".tar.gz", ".tgz"))


class _Shard:
    """A tar file whose members are opened by their place."""

    def __init__(self, path: Path) -> None:
        self.path, stat = path, path.stat()
        self.stamp = f"{path}|{stat.st_size}|{stat.st_mtime_ns}"
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        self._unpacked = _Temporary(path) if packed else None

    def open(self) -> BinaryIO:
        return self.path.open("rb") if self._unpacked is None else self._unpacked.open()

    def members(self) -> list[tarfile.TarInfo]:
        with self.open() as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            return [member for member in archive if member.isfile()]

    def content(self, member: tarfile.TarInfo) -> bytes:
        with self.open() as stream:
            stream.seek(member.offset_data)
            return stream.read(member.size)

    def window(self, member: tarfile.TarInfo) -> BinaryIO:
        return cast("BinaryIO", io.BufferedReader(_Window(self.open(), member.offset_data, member.size)))

    def picture(self, member: tarfile.TarInfo) -> EncodedPicture:
        name = f"{self.path.name}/{member.name}"
        return EncodedPicture(name, f"{self.stamp}|{member.name}", partial(self.window, member))


class _Temporary:
    """A gzipped file unpacked; it is gone when this object is. One that is sent to another process unpacks anew there,
    and once for all that comes of that file."""

    def __init__(self, packed: Path) -> None:
        self._packed = packed
        folder = tempfile.mkdtemp(prefix="controlnet-shard-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._path = Path(folder) / "shard.tar"
        with gzip.open(packed) as stream, self._path.open("wb") as target:
            shutil.copyfileobj(stream, target)

    def __reduce__(self) -> tuple[Any, tuple[Path, int]]:
        return _unpacked, (self._packed, self._packed.stat().st_mtime_ns)

    def open(self) -> BinaryIO:
        return self._path.open("rb")


@lru_cache(maxsize=2)
def _unpacked(packed: Path, _changed: int) -> _Temporary:
    return _Temporary(packed)


class _Window(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, stream: BinaryIO, start: int, length: int) -> None:
        self._stream, self._start, self._length, self._at = stream, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._stream.seek(self._start + self._at)
        content = self._stream.read(max(0, min(len(buffer), self._length - self._at)))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _members(members: Iterable[tarfile.TarInfo]) -> dict[str, dict[str, tarfile.TarInfo]]:
    """By the name up to the first dot behind the last slash, then by the rest, as WebDataset splits names."""
    grouped: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in members:
        folder, slash, file = member.name.rpartition("/")
        stem, _, rest = file.partition(".")
        if stem:  # hidden files, as macOS puts them beside each member
            grouped.setdefault(folder + slash + stem, {})[rest.lower()] = member
    return grouped


def _add(found: Reading, shard: _Shard, key: str, parts: Mapping[str, tarfile.TarInfo], makes_maps: bool) -> None:
    picture, hint = _picture(parts, _PICTURE), _picture(parts, _HINT)
    name = f"{shard.path.name}/{key}"
    if picture is None or (hint is None and not makes_maps):
        found.problems.append(f'"{name}" has no {"picture" if picture is None else "control map"}')
        return
    try:
        captions = _captions(shard, parts)
    except (ValueError, RecursionError) as error:
        found.problems.append(f'the caption of "{name}" cannot be read ({error})')
        return
    if captions is None:
        found.problems.append(f'"{name}" has no caption')
        captions = ("",)
    found.examples.append(Example(name, captions, shard.picture(picture), hint and shard.picture(hint)))


def _picture(parts: Mapping[str, tarfile.TarInfo], roles: Iterable[str]) -> tarfile.TarInfo | None:
    """The member that plays one of the roles: `hint.png`, or only `png`."""
    names = (f"{role}{suffix}".lstrip(".") for role in roles for suffix in SUFFIXES)
    return next((parts[name] for name in names if name in parts), None)


def _captions(shard: _Shard, parts: Mapping[str, tarfile.TarInfo]) -> tuple[str, ...] | None:
    text = next((parts[name] for name in _TEXT if name in parts), None)
    if text is not None:
        return (shard.content(text).decode("utf-8-sig").strip(),)
    if "json" not in parts:
        return None
    row = json.loads(shard.content(parts["json"]).decode("utf-8-sig"))
    named = [key for key in _JSON if key in row] if isinstance(row, dict) else []
    return captions_of(row[named[0]]) if named else None
