"""Data sets on the disk, in the layouts of the tools that people come from.

A reader finds pairs and captions without opening pictures. What does not pair up is a problem that is told before the
training, not an exception in the middle of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from .config import DataOptions
from .errors import TrainingError
from .examples import Example, Reader, Reading, by_stem, captions_beside, file_example
from .kohya import kohya
from .shards import webdataset
from .tables import fill50k, table

__all__ = ["READERS", "Example", "Reader", "Reading", "file_example", "read_data"]
_OF_FILES = ("webdataset", "diffusers", "datasets", "parquet", "csv")
"""Formats in which `data.folder` can be a file."""


def read_data(options: DataOptions, extra: Mapping[str, Reader] | None = None) -> Reading:
    """All pairs of the data set. `extra` are further formats by name. Raises TrainingError where there is none."""
    readers: dict[str, Reader] = {**READERS, **(extra or {})}
    if options.format not in readers:
        raise TrainingError(
            f'there is no data format "{options.format}"',
            field="data.format",
            remedy=f"there are: {', '.join(readers)}",
        )
    if options.format in READERS:
        _check_there(options)
    try:
        found = readers[options.format](options)
    except OSError as error:  # a folder that may not be listed, a file that went away meanwhile
        raise TrainingError("the data cannot be read", field="data.folder", found=error) from error
    if options.count:
        found.examples = found.examples[: options.count]
    return found


def _check_there(options: DataOptions) -> None:
    if not options.folder.exists():
        raise TrainingError("the data folder is not there", field="data.folder", found=str(options.folder))
    if options.folder.is_file() and options.format not in _OF_FILES:
        raise TrainingError("the data folder is a file", field="data.folder", found=str(options.folder),
                            remedy="name the folder that it lies in")  # fmt: skip


def _pictures(options: DataOptions) -> Reading:
    """Plain pictures with captions beside them; `preprocessor` makes the maps."""
    if options.preprocessor == "none":
        raise TrainingError(
            "plain pictures need a preprocessor that makes their control maps",
            field="data.preprocessor",
            remedy='name one, such as "canny"',
        )
    found = Reading()
    for picture in by_stem(options.folder, found).values():
        captions = captions_beside(picture, options, found)
        found.examples.append(file_example(picture.name, picture, None, captions))
    return found


READERS: Mapping[str, Reader] = {
    "fill50k": fill50k,
    "diffusers": table,
    "datasets": table,
    "parquet": table,
    "csv": table,
    "kohya": kohya,
    "pictures": _pictures,
    "webdataset": webdataset,
}
