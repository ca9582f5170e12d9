"""A data set as a row of parts, each opened by itself: one after the other, or all of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .errors import TrainingError
from .examples import LEFT_OUT, Reading
from .pictures import OTHERS, SUFFIXES

Item = TypeVar("Item")
_IN_A_PART = 1024


@dataclass(frozen=True)
class Part:
    """`open` finds the pairs of this part and opens no picture. `held_out`: they are the data set's own for samples;
    such parts come first."""

    open: Callable[[], Reading]
    held_out: bool = False

    def read(self) -> Reading:
        """Its pairs, in their place. Raises TrainingError."""
        try:
            found = self.open()
        except OSError as error:  # a folder that may not be listed, a file that went away meanwhile
            raise TrainingError("the data cannot be read", field="data.folder", found=error) from error
        if self.held_out:
            found.held_out, found.examples = found.examples, []
        return found


def joined(parts: Iterable[Part], count: int = 0) -> Reading:
    """All parts as one, or as many as have `count` pairs."""
    found = Reading()
    for part in parts:
        one = part.read()
        found.examples += one.examples
        found.held_out += one.held_out
        found.problems += one.problems
        found.to_caption += one.to_caption
        found.left_out += one.left_out
        found.uncaptioned += one.uncaptioned
        if count and len(found.examples) >= count:
            found.examples = found.examples[:count]
            break
    return found


def blocks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """What makes a part where the data set has none of its own."""
    rest = iter(items)
    while block := list(itertools.islice(rest, _IN_A_PART)):
        yield block


def pictures_below(folder: Path, without: Path | None = None) -> Iterator[tuple[str, Path, str]]:
    """(path below `folder` without the suffix, picture, problem or "") of the pictures in a folder and those below it,
    in order; of several with one base name the first, the others with a problem. `without`: a folder that is left out.
    The problem is LEFT_OUT for what may be meant to be there and is not read: other kinds of pictures, linked folders.

    Names alone are looked at, and those of one folder at a time are in memory.
    """
    yield from _below(folder, "", without)


def _below(folder: Path, inner: str, without: Path | None) -> Iterator[tuple[str, Path, str]]:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    named: dict[str, str] = {}
    for entry in entries:
        stem, suffix = os.path.splitext(entry.name)
        path = folder / entry.name
        if entry.name.startswith(".") or path == without:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _below(path, f"{inner}{entry.name}/", without)
        elif suffix.lower() in OTHERS or entry.is_dir():  # a linked folder may lead back to this one
            yield f"{inner}{stem}", path, LEFT_OUT
        elif suffix.lower() in SUFFIXES:
            yield f"{inner}{stem}", path, _problem(entry, inner, named.setdefault(stem, entry.name))


def _problem(entry: os.DirEntry[str], inner: str, same: str) -> str:
    """`same`: what is already there of its base name."""
    if not entry.is_file():
        return f'"{inner}{entry.name}" is a link to nothing'
    return "" if same == entry.name else f'"{inner}{entry.name}" and "{inner}{same}" have the same base name'


def by_stem(folder: Path, found: Reading, without: Path | None = None) -> dict[str, Path]:
    """All of `pictures_below`; two of one name are a problem."""
    named: dict[str, Path] = {}
    for stem, path, problem in pictures_below(folder, without):
        if problem:
            found.tell(path, problem)
        else:
            named.setdefault(stem, path)
    return named
