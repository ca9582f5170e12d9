"""Executing a file as the host does: module name = file name, not entered into `sys.modules`."""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path
from types import ModuleType

from modules import errors

loaded_scripts: dict[str, ModuleType] = {}


def load_module(path: str) -> ModuleType:
    """Execute the file and return its module object."""
    spec = importlib.util.spec_from_file_location(os.path.basename(path), path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded_scripts[path] = module
    return module


def preload(folder: Path, parser: argparse.ArgumentParser) -> None:
    """Run the extension's `preload.py`; an exception is reported and the rest of that file is lost."""
    file = folder / "preload.py"
    if not file.is_file():
        return
    try:
        module = load_module(str(file))
        if hasattr(module, "preload"):
            module.preload(parser)
    except Exception:  # noqa: BLE001 - the host's rule
        errors.report(f"Error running preload() for {file}", exc_info=True)
