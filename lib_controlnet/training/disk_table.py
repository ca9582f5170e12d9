"""Texts by key in a file: of millions, memory holds what is asked for, and what is new is added, not all written."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import TrainingError

_AT_ONCE = 4096
_WAIT = 60.0
"""Seconds that a process waits for another that writes."""
_TABLE = "CREATE TABLE IF NOT EXISTS texts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"


class DiskTable:
    """An SQLite file. It holds nothing that cannot be found out again: a damaged one is begun anew, and where none can
    be made the texts are in memory for as long as this object lives. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.RLock()
        self._new: dict[str, str] = {}
        self._connection: sqlite3.Connection | None = None

    def get(self, key: str) -> str | None:
        """What was put under `key`. Raises TrainingError where the file can no longer be read."""
        with self._lock:
            if key in self._new:
                return self._new[key]
            if self._connection is None and not self._path.exists():
                return None
            row = self._do("SELECT value FROM texts WHERE key = ?", (key,)).fetchone()
            return None if row is None else row[0]

    def put(self, key: str, value: str) -> None:
        """It is in the file after `commit`."""
        with self._lock:
            self._new[key] = value
            if len(self._new) >= _AT_ONCE:
                self.commit()

    def commit(self) -> None:
        """Write what is new. Raises TrainingError where the disk refuses."""
        with self._lock:
            if self._new:
                rows = list(self._new.items())
                self._do_all("INSERT OR REPLACE INTO texts VALUES (?, ?)", rows)
                self._new = {}

    def keys_from(self, prefix: str) -> dict[str, str]:
        """The texts whose keys begin with `prefix`, of those in the file."""
        if self._connection is None and not self._path.exists():
            return {}
        with self._lock:
            return dict(self._do("SELECT key, value FROM texts WHERE key >= ? AND key < ?", (prefix, prefix + "\x7f")))

    def forget(self, key: str, value: str) -> None:
        """`key`, and all keys with the text `value`: it looks through the whole file."""
        with self._lock:
            self.commit()
            self._do_all("DELETE FROM texts WHERE key = ? OR value = ?", [(key, value)])

    def count_below(self, key: str) -> int:
        """How many keys come before `key`, of those in the file."""
        if self._connection is None and not self._path.exists():
            return 0
        with self._lock:
            return int(self._do("SELECT count(*) FROM texts WHERE key < ?", (key,)).fetchone()[0])

    def _do(self, statement: str, values: Iterable[Any]) -> sqlite3.Cursor:
        try:
            return self._opened().execute(statement, tuple(values))
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _do_all(self, statement: str, rows: Iterable[Any]) -> None:
        try:
            with self._opened() as connection:
                connection.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> TrainingError:
        return TrainingError(f'"{self._path}" cannot be used', field="output.folder", found=error,
                             remedy="make room on the disk, or delete the file: it is made again")  # fmt: skip

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connected(self._path)
        return self._connection


def short(text: str) -> str:
    """A key for a long text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _connected(path: Path) -> sqlite3.Connection:
    """The file, a new one in place of a damaged one, or a table in memory where no file can be written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        try:
            return _connect(str(path))
        except sqlite3.OperationalError:  # a folder that is read-only
            break
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)
    return _connect(":memory:")


def _connect(name: str) -> sqlite3.Connection:
    made = sqlite3.connect(name, timeout=_WAIT, check_same_thread=False)
    made.execute(_TABLE)
    return made
