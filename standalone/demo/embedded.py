"""An embedded WebUI with the demo's models, for figures of whole jobs."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from .checkpoint import FOLDER


@contextlib.contextmanager
def embedded() -> Iterator[Any]:
    """The running application (`standalone.App`), without page and API; what it says goes to stderr."""
    from standalone.app import boot

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        app = boot(None, FOLDER / "controlnet", data_dir=folder, api=False, ui=False)
        try:
            yield app
        finally:
            app.close()
