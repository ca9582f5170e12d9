"""Files that reach us by name: those that the page uploaded, and no others of the server's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import UnitError


def upload_folder() -> Path:
    """Where gradio keeps what a page uploads, found as gradio itself finds it."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio")


def uploaded(name: str, field: str) -> Path:
    """The uploaded file of this name. Raises UnitError for any other path, whether it is there or not: a caller of the
    API must not make the server open its files."""
    path = _inside(name)
    if path is None:
        raise UnitError(
            "this is no file that was uploaded on the page",
            field=field,
            found=Path(name).name[:80],
            remedy="upload the file on the page, or send pictures as base64 in the unit's images",
        )
    return path


def _inside(name: str) -> Path | None:
    """The file without links on the way, None where it is not among the uploads."""
    try:
        path = Path(name).resolve()
        return path if path.is_relative_to(upload_folder().resolve()) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, a loop of links
        return None
