"""Data sets in Parquet files, as the hub keeps them: pictures in cells, read block by block."""

from __future__ import annotations

import importlib
import io
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from .config import DataOptions
from .errors import TrainingError
from .examples import COLUMNS, EncodedPicture, Example, Reading, captions_of

_BLOCK, _KEPT = 32, 2
"""Rows that are read together, and how many such blocks stay: a check reads eight rows at once, nearly in order."""
_BUFFER = 1 << 20
"""Bytes: with a buffer pyarrow reads pages, without one all that a row group has of a column."""
Names = tuple[str, str | None, str | None]


class Parquet:
    """Cells hold pictures as bytes, or as `{"bytes", "path"}` as the hub stores them.

    Threads may share it; a copy in another process opens the file there.
    """

    def __init__(self, path: Path, options: DataOptions) -> None:
        self._path, self._options = path, options
        self._lock = threading.Lock()
        self._open: deque[_Group] = deque(maxlen=_KEPT)

    def __reduce__(self) -> tuple[Any, tuple[Path, DataOptions]]:
        return Parquet, (self._path, self._options)

    def groups(self) -> Iterator[Callable[[], Reading]]:
        """One for each row group: all of its rows, without their pictures."""
        try:
            file = _pyarrow().ParquetFile(str(self._path))
            count, columns = file.num_row_groups, set(file.schema_arrow.names)
        except (OSError, ValueError) as error:  # pyarrow's errors are these
            yield partial(self._unread, str(error))
            return
        picture, hint, text = (self._column(kind, columns) for kind in ("picture", "hint", "text"))
        if picture is None or (hint is None and self._options.preprocessor == "none"):
            yield lambda: Reading(problems=[f'"{self._path.name}" has no columns image and conditioning_image'])
            return
        for group in range(count):
            yield partial(self._read, group, (picture, hint, text))

    def _read(self, group: int, names: Names) -> Reading:
        found, text = Reading(), names[2]
        try:
            file, stat = _pyarrow().ParquetFile(str(self._path)), self._path.stat()
            rows = file.metadata.row_group(group).num_rows
            texts = file.read_row_group(group, columns=[text])[text].to_pylist() if text else [None] * rows
        except (OSError, ValueError) as error:
            return self._unread(str(error))
        stamp = f"{self._path}|{stat.st_size}|{stat.st_mtime_ns}"
        for row in range(rows):
            try:
                captions = captions_of(texts[row])
            except ValueError as error:
                found.problems.append(f'the caption of "{self._path.name}/{group}/{row}" is {error}')
                continue
            found.examples.append(self._example(stamp, group, row, names, captions))
        return found

    def _unread(self, error: str) -> Reading:
        return Reading(problems=[f'"{self._path.name}" cannot be read ({error})'])

    def _column(self, kind: str, present: set[str]) -> str | None:
        asked = {"picture": self._options.picture_column, "hint": self._options.hint_column,
                 "text": self._options.caption_column}[kind]  # fmt: skip
        return next((name for name in ((asked,) if asked else COLUMNS[kind]) if name in present), None)

    def _example(self, stamp: str, group: int, row: int, names: Names, captions: tuple[str, ...]) -> Example:
        picture, hint, _ = names
        name, read = f"{self._path.name}/{group}/{row}", tuple(one for one in (picture, hint) if one)

        def source(column: str, shown: str) -> EncodedPicture:
            opened = partial(self._opened, group, row, column, read)
            return EncodedPicture(shown, f"{stamp}|{group}|{row}|{column}", opened, far=True)

        return Example(name, captions, source(picture, name), source(hint, f"{name} ({hint})") if hint else None)

    def _opened(self, group: int, row: int, column: str, read: tuple[str, ...]) -> BinaryIO:
        """The picture in a cell. `read`: the columns of which cells will be asked for. Raises OSError."""
        try:
            with self._lock:
                cell = self._group(group, read).cell(row, column)
        except ValueError as error:
            raise OSError(f"{self._path.name} cannot be read ({error})") from error
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if isinstance(content, bytes):
            return io.BytesIO(content)
        name = cell.get("path") if isinstance(cell, dict) else cell
        if not isinstance(name, str):
            raise OSError(f"the cell holds {type(cell).__name__}, no picture")
        return (self._path.parent / name).open("rb")

    def _group(self, number: int, read: tuple[str, ...]) -> _Group:
        """The last ones used stay open: threads meet at the border of two."""
        found = next((group for group in self._open if group.number == number), None)
        if found is None:
            found = _Group(self._path, number, read)
            self._open.append(found)
        return found


class _Group:
    """Cells of one row group, which is gone through from its first row: rows are asked for mostly in their order, and
    for one that lies before what is in memory it is begun anew."""

    def __init__(self, path: Path, number: int, read: tuple[str, ...]) -> None:
        self.number = number
        self._path, self._read = path, list(read)
        self._begin()

    def cell(self, row: int, column: str) -> Any:
        """Raises OSError or ValueError."""
        if row < self._first:
            self._begin()
        while row >= self._next:
            block = next(self._batches, None)
            if block is None:
                raise OSError(f"row group {self.number} of {self._path.name} ends before row {row}")
            self._blocks.append((self._next, block))
            self._next += len(block)
        first, block = next(kept for kept in reversed(self._blocks) if kept[0] <= row)
        return block.column(column)[row - first].as_py()

    @property
    def _first(self) -> int:
        """Of the rows in memory, or the next."""
        return self._blocks[0][0] if self._blocks else self._next

    def _begin(self) -> None:
        file = _pyarrow().ParquetFile(str(self._path), pre_buffer=False, buffer_size=_BUFFER)
        groups, columns = [self.number], self._read
        self._batches: Iterator[Any] = file.iter_batches(_BLOCK, row_groups=groups, columns=columns, use_threads=False)
        self._blocks: deque[tuple[int, Any]] = deque(maxlen=_KEPT)
        self._next = 0


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise TrainingError(
            "Parquet files need the package pyarrow", field="data.folder", found=str(error),
            remedy='install it with "pip install pyarrow", beside NumPy 1 with "pip install pyarrow==25.0.1"',
        ) from error  # fmt: skip
