"""Data sets on the disk, in the layouts of the tools that people come from.

A reader finds pairs and captions without opening pictures. What does not pair up is a problem that is told before the
training, not an exception in the middle of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from .config import DataOptions
from .errors import TrainingError
from .examples import Example, Reader, Reading, captions_beside, file_example
from .kohya import kohya
from .parts import Part, blocks, joined, pictures_below
from .shards import webdataset
from .tables import fill50k, table

__all__ = ["Example", "Reader", "Reading", "file_example", "parts_of", "read_data"]
_OF_FILES = ("webdataset", "diffusers", "datasets", "parquet", "csv")
"""Formats in which `data.folder` can be a file."""


def read_data(options: DataOptions, extra: Mapping[str, Reader] | None = None) -> Reading:
    """All pairs of the data set, or the first `options.count`, behind which nothing is opened. `extra` are further
    formats by name. Raises TrainingError where there is none."""
    return joined(parts_of(options, extra), options.count)


def parts_of(options: DataOptions, extra: Mapping[str, Reader] | None = None) -> Iterator[Part]:
    """The data set in the parts in which its format can be opened. Raises TrainingError where there is none."""
    others = {"kohya": kohya, **(extra or {})}
    if options.format not in {**PARTED, **others}:
        raise TrainingError(
            f'there is no data format "{options.format}"',
            field="data.format",
            remedy=f"there are: {', '.join({**PARTED, **others})}",
        )
    if options.format not in (extra or {}):
        _check_there(options)
    if options.format in others:
        yield Part(partial(others[options.format], options))
        return
    try:
        yield from PARTED[options.format](options)
    except OSError as error:  # a folder that may not be listed, a file that went away meanwhile
        raise TrainingError("the data cannot be read", field="data.folder", found=error) from error


def _check_there(options: DataOptions) -> None:
    if not options.folder.exists():
        raise TrainingError("the data folder is not there", field="data.folder", found=str(options.folder))
    if options.folder.is_file() and options.format not in _OF_FILES:
        raise TrainingError("the data folder is a file", field="data.folder", found=str(options.folder),
                            remedy="name the folder that it lies in")  # fmt: skip


def _pictures(options: DataOptions) -> Iterator[Part]:
    """Plain pictures with captions beside them; `preprocessor` makes the maps."""
    if options.preprocessor == "none":
        raise TrainingError(
            "plain pictures need a preprocessor that makes their control maps",
            field="data.preprocessor",
            remedy='name one, such as "canny"',
        )
    for block in blocks(pictures_below(options.folder)):
        yield Part(partial(_plain, block, options))


def _plain(pictures: Iterable[tuple[str, Path, str]], options: DataOptions) -> Reading:
    found = Reading()
    for _, picture, problem in pictures:
        if problem:
            found.tell(picture, problem)
            continue
        captions = captions_beside(picture, options, found)
        if captions is not None:
            found.examples.append(file_example(picture.name, picture, None, captions))
    return found


PARTED: Mapping[str, Callable[[DataOptions], Iterator[Part]]] = {
    "fill50k": fill50k,
    "diffusers": table,
    "datasets": table,
    "parquet": table,
    "csv": table,
    "pictures": _pictures,
    "webdataset": webdataset,
}
"""Formats that are opened in parts; of the others all names are listed at once."""
