"""Small files that must never be lost: written whole or not at all, and put aside when they cannot be read."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

_TRIES = 5
_PAUSE = 0.05
_NO_OTHER_WAY = frozenset((errno.EBUSY, errno.EXDEV))


def write_whole(path: Path, text: str) -> None:
    """Writes a text (UTF-8) so that the file is the old one or the new one at every moment, also if power fails.

    The text goes into a file beside it, which takes its place; a link stays one. Where the file itself is mounted (as
    in containers) nothing can take its place, and it is written over. Raises OSError, and UnicodeEncodeError before
    anything is touched.
    """
    content = text.encode("utf-8")
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _allow_as(target, part)
        _replace(part, target)
    except OSError as error:
        if error.errno not in _NO_OTHER_WAY:
            raise
        target.write_bytes(content)
    finally:
        part.unlink(missing_ok=True)
    _keep_name(target.parent)


def put_aside(path: Path) -> Path | None:
    """Renames (else copies) a damaged file to `<name>.damaged-<n>`, which is returned; None where neither works."""
    numbers = range(1, 10_000)
    aside = next((p for n in numbers if not os.path.lexists(p := path.with_name(f"{path.name}.damaged-{n}"))), None)
    if aside is None:
        return None
    for way in (path.rename, partial(shutil.copyfile, path)):  # a mounted file cannot be renamed
        with suppress(OSError):
            way(aside)
            return aside
    return None


def _replace(part: Path, target: Path) -> None:
    """On Windows a file that somebody reads this moment (a virus scanner) cannot be replaced; it soon can."""
    for attempt in range(_TRIES):
        try:
            part.replace(target)
        except PermissionError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _allow_as(target: Path, part: Path) -> None:
    """The new file may be read and written by whom the old one could."""
    with suppress(OSError):  # there is no old one, or the file system has no such rights
        part.chmod(target.stat().st_mode & 0o777)


def _keep_name(folder: Path) -> None:
    """Where the system can: the folder's new entry is on disk as well."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
