"""Pairs of a data set: where their pictures and maps lie, what their headers say, how they are read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO, cast

from .config import DataOptions
from .disk_table import DiskTable, short
from .errors import TrainingError
from .pictures import Pixels, header_size, read_picture

_ENDS = 64 << 10
LEFT_OUT = "left out"
COLUMNS = {
    "picture": ("image", "file_name", "image_file_name", "target", "jpg", "picture"),
    "hint": (
        "conditioning_image", "conditioning_image_file_name", "conditioning_file_name", "conditioning", "control",
        "control_image", "hint", "source",
    ),
    "text": ("text", "caption", "prompt", "txt", "captions"),
}  # fmt: skip
"""What the columns of a table are called, the usual name first."""


@dataclass(frozen=True)
class Facts:
    """`size`: (width, height) of the upright picture. `fingerprint`: follows from the content, not the place."""

    size: tuple[int, int]
    fingerprint: str


class Source(Protocol):
    """A picture that can be read. `key`: changes whenever the content may have, and is known without reading it.
    `far`: reading it takes much longer than reading a file of its own would."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def far(self) -> bool: ...
    def facts(self) -> Facts: ...
    def __call__(self) -> Pixels: ...


class EncodedPicture:
    """A picture of any format in a stream that `opened` opens at its first byte."""

    def __init__(self, name: str, key: str, opened: Callable[[], BinaryIO], far: bool = False) -> None:
        self.name, self.key, self.far = name, key, far
        self._opened = opened
        self._facts: Facts | None = None

    def facts(self) -> Facts:
        """From the header and both ends of the file; read once. Raises OSError, ValueError or SyntaxError."""
        if self._facts is None:
            with self._opened() as stream:
                self._facts = Facts(header_size(stream), _fingerprint(stream))
        return self._facts

    def know(self, facts: Facts) -> None:
        """What an earlier check found."""
        self._facts = facts

    def __call__(self) -> Pixels:
        """(H, W, 3) RGB uint8. Raises TrainingError."""
        try:
            with self._opened() as stream:
                content = stream.read()
        except (OSError, EOFError) as error:
            raise TrainingError(f'the picture "{self.name}" cannot be read', field="data", found=error,
                                remedy="replace or remove it") from error  # fmt: skip
        return read_picture(content, self.name)


def picture_file(path: Path, name: str) -> EncodedPicture:
    """A picture file. Raises OSError where it is not there."""
    stat = path.stat()
    return EncodedPicture(name, f"{path}|{stat.st_size}|{stat.st_mtime_ns}", partial(path.open, "rb"))


def _fingerprint(stream: BinaryIO) -> str:
    """Hash of the length and of the first and the last 64 KB: most pictures as a whole, and of the large ones what no
    change of a compressed picture leaves alone."""
    stream.seek(0, io.SEEK_END)
    length = stream.tell()
    digest = hashlib.blake2b(str(length).encode(), digest_size=12)
    for start in sorted({0, max(0, length - _ENDS)}):
        stream.seek(start)
        digest.update(stream.read(_ENDS))
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Example:
    """One pair. `captions`: one is chosen at each visit. `hint` is None where a preprocessor makes it."""

    name: str
    captions: tuple[str, ...]
    picture: Source
    hint: Source | None

    def size(self) -> tuple[int, int]:
        """(width, height) of the picture."""
        return self.picture.facts().size

    def hint_size(self) -> tuple[int, int]:
        """(width, height) of the map; the picture's where it is yet to be made."""
        return (self.hint or self.picture).facts().size


@dataclass
class Reading:
    """What a reader found. `held_out`: pairs the data set itself keeps for samples. `problems`: one sentence each.
    `to_caption`: pictures whose captions the host's interrogator is to write before the training. `left_out`: names of
    what is not read. `uncaptioned`: pictures whose caption files are not there."""

    examples: list[Example] = field(default_factory=list)
    held_out: list[Example] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    to_caption: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    uncaptioned: int = 0

    def tell(self, path: Path, problem: str) -> None:
        """Of a picture, or what else lies there."""
        if problem == LEFT_OUT:
            self.left_out.append(f"{path.name}/" if path.is_dir() else path.name)
        else:
            self.problems.append(problem)


Reader = Callable[[DataOptions], Reading]


class Remembered:
    """What earlier checks saw in pictures, kept in a file: a set of many is looked through once."""

    def __init__(self, path: Path) -> None:
        self._table = DiskTable(path)

    def look(self, source: Source) -> Facts:
        """The facts of `source`, read only where they are not known. Raises what `Source.facts` does."""
        key = short(source.key)
        known = self._table.get(key)
        if known is not None and isinstance(source, EncodedPicture):
            width, height, fingerprint = known.split(" ", 2)
            source.know(Facts((int(width), int(height)), fingerprint))
        facts = source.facts()
        if known is None:
            with contextlib.suppress(TrainingError):  # see `keep`
                self._table.put(key, f"{facts.size[0]} {facts.size[1]} {facts.fingerprint}")
        return facts

    def keep(self) -> None:
        """Write what is new; a folder that cannot be written only costs the next check its time."""
        with contextlib.suppress(TrainingError):
            self._table.commit()


def add_pair(found: Reading, name: str, picture: Path | None, hint: Path | None, captions: Iterable[str]) -> None:
    """A pair of files, or a problem where one of them is not there."""
    for what, path in (("picture", picture), ("control map", hint)):
        if path is None or not path.is_file():
            where = f" ({path.name})" if path is not None and path.name != name else ""
            found.problems.append(f'"{name}" has no {what}{where}')
            return
    assert picture is not None
    assert hint is not None
    found.examples.append(file_example(name, picture, hint, captions))


def file_example(name: str, picture: Path, hint: Path | None, captions: Iterable[str]) -> Example:
    """A pair of picture files. Raises OSError where one is not there."""
    made = None if hint is None else picture_file(hint, hint.name)
    return Example(name, tuple(caption.strip() for caption in captions), picture_file(picture, name), made)


def caption_file(path: Path, found: Reading) -> str | None:
    """The text of a caption's file; None, and a problem, where it cannot be read."""
    try:
        return path.read_text("utf-8-sig")
    except OSError:
        found.problems.append(f'the caption file "{path.name}" is not there')
        found.uncaptioned += 1
    except UnicodeDecodeError:
        found.problems.append(f'the caption file "{path.name}" is not UTF-8')
    return None


def captions_beside(picture: Path, options: DataOptions, found: Reading) -> list[str] | None:
    """The caption in the file beside `picture`; none where it is yet to be written, None where it cannot be read."""
    path = picture.with_suffix(options.caption_extension)
    if options.captions == "none":
        return [""]
    if options.captions == "interrogator" and not path.exists():
        found.to_caption.append(picture)
        return []
    text = caption_file(path, found)
    return None if text is None else [text]


def captions_of(value: object) -> tuple[str, ...]:
    """The captions in a cell of a table: a text, several, or nothing. Raises ValueError for anything else."""
    if value is None:
        return ("",)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return (str(value).strip(),)
    if isinstance(value, list | tuple) and value:
        return tuple(text for one in cast("list[object]", value) for text in captions_of(one))
    raise ValueError(f"no text but {type(value).__name__}")


def json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """(line, object) of a file with one JSON object a line, or one list of objects; None for what is no object.

    Raises TrainingError for a file that is not there, no text, or no JSON.
    """
    try:
        # universal newlines, as str.splitlines, would also cut where a caption may go on
        with path.open(encoding="utf-8-sig", newline="\n") as stream:
            for number, row in _rows(path.name, stream):
                yield number, cast("Mapping[str, Any]", row) if isinstance(row, dict) else None
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path.name} cannot be read", field="data.folder", found=str(error)) from error


def _rows(name: str, stream: TextIO) -> Iterator[tuple[int, Any]]:
    begun = False
    for number, line in enumerate(stream, 1):
        if not begun and line.lstrip().startswith("["):
            yield from enumerate(_json(name, number, line + stream.read()), 1)
            return
        if line.strip():
            begun = True
            yield number, _json(name, number, line)


def _json(name: str, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TrainingError(
            f"{name}, line {number} is no JSON", field="data", found=f"{len(text)} characters"
        ) from error
