"""The second file of a control model that comes in two: known by its tensors, wherever it lies near the first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..core.errors import ModelFileError
from .canonical import canonical
from .detect import KeyCondition
from .reader import SUFFIXES, read_weights


def companion(path: Path, condition: KeyCondition, problem: str, remedy: str) -> Mapping[str, Tensor]:
    """Canonical weights of the one file beside `path`, or else in the folder around, whose keys match `condition`.

    Raises ModelFileError that says `problem` where there is none, with the `remedy`, or more than one.
    """
    found: dict[Path, Mapping[str, Tensor]] = {}
    for folder in (path.parent, path.parent.parent):
        for file in sorted(folder.iterdir()) if not found else ():
            if file.suffix.lower() in SUFFIXES and file != path and _is(file, condition):
                found[file] = canonical(read_weights(file).weights)
    if len(found) != 1:
        names = ", ".join(file.name for file in found)
        raise ModelFileError(
            problem,
            field="model",
            found=f"several: {names}" if found else f"none in {path.parent} and the folder around it",
            remedy="keep one beside it" if found else remedy,
        )
    (weights,) = found.values()
    return weights


def _is(file: Path, condition: KeyCondition) -> bool:
    try:
        return condition.matches(canonical(read_weights(file, shapes_only=True).weights).keys())
    except ModelFileError:
        return False  # what is no weights file is none of a model's; it is named where it is chosen as a model
