"""States from which a killed training goes on: one file each, whole or not there."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from ..loading.programs import holds_program
from .errors import TrainingError

_NAME = re.compile(r"state-(\d{8})\.pt")


def save_state(folder: Path, step: int, content: dict[str, Any], keep: int) -> Path:
    """Write `content` (tensors and plain values) as the state of `step`; the newest `keep` states stay.

    The file appears in one move after it is on the disk, so a kill at any moment leaves the older ones or this one
    whole. Raises TrainingError where the disk refuses; the older states are as they were.
    """
    path = folder / f"state-{step:08d}.pt"
    write_whole(path, lambda partial: torch.save(content, partial))
    for old in states(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def states(folder: Path) -> list[Path]:
    """The states in `folder`, oldest first. Leftovers of killed writes are removed."""
    for partial in folder.glob(".state-*.part"):
        partial.unlink(missing_ok=True)
    return sorted(path for path in folder.glob("state-*.pt") if _NAME.fullmatch(path.name))


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest state in `folder`, None where there is none. Raises TrainingError for one that cannot be read."""
    found = states(folder)
    if not found:
        return None
    try:
        with found[-1].open("rb") as file:
            if holds_program(file):
                raise pickle.UnpicklingError("it holds a program")
            return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f'the state "{found[-1].name}" cannot be read',
            field="resume",
            found=f"{type(error).__name__}: {error}",
            remedy="delete it to go on from the one before, or start without --resume",
        ) from error


def write_whole(path: Path, write: Any) -> None:
    """Make `path` by calling `write(partial)` and moving the result, flushed to the disk, into place.

    Raises TrainingError where the disk refuses (full, read-only, gone); nothing is left behind then.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        rights = partial.stat().st_mode  # safetensors makes files that only their owner may read
        write(partial)
        partial.chmod(rights)
        with partial.open("r+b") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError, _safetensors_error()) as error:  # PyTorch's writer raises RuntimeError
        partial.unlink(missing_ok=True)
        raise TrainingError(
            f'"{path}" cannot be written; nothing that was there before is lost',
            field="output",
            found=f"{type(error).__name__}: {error}",
            remedy="make room on the disk and go on with --resume",
        ) from error


def _safetensors_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError
