"""Opening a folder with the file manager of the computer, for whoever sits before it."""

from __future__ import annotations

import html
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_HERE = ("127.0.0.1", "::1", "localhost")


def open_folder(chosen: str, known: Sequence[Path], client: str) -> str:
    """Opens one of the `known` folders, where `client` is this computer; what is to be said of that (HTML)."""
    folder = next((path for path in known if str(path) == chosen), None)
    if folder is None:
        return _said("Choose one of the folders")
    if not folder.is_dir():
        return _said(f"There is no folder {folder} yet; the first download makes it")
    if client not in _HERE:
        return _said(f"The folder is {folder}, on the computer of the WebUI, which is not yours")
    program = {"win32": "explorer", "darwin": "open"}.get(sys.platform, "xdg-open")
    found = shutil.which(program)
    if found is None:
        return _said(f"The folder is {folder}; {program}, which would open it, is not installed")
    subprocess.Popen([found, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return _said(f"{folder} is opened")


def _said(text: str) -> str:
    return f'<p class="cnet-note" role="status">{html.escape(text)}.</p>'
