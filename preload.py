"""Command line options of the extension; the WebUI calls `preload` before it reads its command line.

Only argparse here: the WebUI is half imported at this moment. An option that nobody defines stops the WebUI's
start, so the options of earlier ControlNet extensions are accepted too: start scripts go on working.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

HONOURED: dict[str, dict[str, Any]] = {
    "--controlnet-dir": {"type": str, "metavar": "DIR", "help": "ControlNet: folder with more control models"},
    "--controlnet-annotator-models-path": {
        "type": str,
        "metavar": "DIR",
        "help": "ControlNet: folder with weights of preprocessors",
    },
}
NO_EFFECT = "ControlNet: accepted for old start scripts, has no effect"
ACCEPTED: dict[str, dict[str, Any]] = {
    "--no-half-controlnet": {"action": "store_true", "help": NO_EFFECT},
    "--controlnet-preprocessor-cache-size": {"type": int, "help": NO_EFFECT},
    "--controlnet-loglevel": {"type": str, "help": NO_EFFECT},
    "--controlnet-tracemalloc": {"action": "store_true", "help": NO_EFFECT},
}


def preload(parser: argparse.ArgumentParser) -> None:
    """Add our options, except those that the host has or will have itself."""
    if _is_forge():
        # It and its built-in extension define `--controlnet-dir`, `-loglevel` and `-tracemalloc`, partly
        # after us; a second definition ends in an error in whoever comes second.
        return
    for flag, details in {**HONOURED, **ACCEPTED}.items():
        with contextlib.suppress(argparse.ArgumentError):  # another extension was first: its value serves us too
            parser.add_argument(flag, **details)


def _is_forge() -> bool:
    """Whether the host ships `modules_forge`, imported or not."""
    return "modules_forge" in sys.modules or any((Path(entry or ".") / "modules_forge").is_dir() for entry in sys.path)
