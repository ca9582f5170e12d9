"""Finds the families in this folder and asks them whose a file is."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from ..core.errors import ModelFileError
from ..loading.canonical import canonical
from ..loading.detect import describe_kind, kind_of
from ..loading.reader import read_weights
from ..loading.sidecar import stated_beside
from .base import ControlFamily, ControlModel, OwnControl, Runtime

_MISSHAPEN = (ArithmeticError, LookupError, TypeError, ValueError)
"""What reading sizes from tensors of odd shapes ends in."""
_SHOWN = 2
"""Kinds of which it is said what a file lacks."""


def discover() -> list[ControlFamily]:
    """Every module of this folder with a `FAMILY`, in the order in which they must be asked."""
    return _ordered(_named("FAMILY"))


@cache
def own_controls() -> Mapping[str, OwnControl]:
    """Every module's `EFFECT`, by the name under which the data sheets of preprocessors ask for it."""
    return _named("EFFECT")


def _named(attribute: str) -> dict[str, Any]:
    """What the modules of this folder have under that name, by id."""
    found: dict[str, Any] = {}
    for one in (getattr(module, attribute, None) for module in _modules()):
        if one is None:
            continue
        if one.id in found:
            raise ValueError(f'two of {attribute} are called "{one.id}"')
        found[one.id] = one
    return found


@cache
def _modules() -> Sequence[ModuleType]:
    package = __name__.rpartition(".")[0]
    folder = str(Path(__file__).parent)
    return [importlib.import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules([folder])]


def find_family(weights: Mapping[str, Tensor], families: list[ControlFamily]) -> ControlFamily | None:
    """The family of a file's canonical weights."""
    return next((family for family in families if family.condition.matches(weights.keys())), None)


def load_model(path: Path, runtime: Runtime, families: list[ControlFamily]) -> ControlModel:
    """Reads a file, finds its family and builds the network. Raises ModelFileError with what was sought and found."""
    file = read_weights(path)
    weights = canonical(file.weights)
    family = find_family(weights, families)
    if family is not None:
        metadata = stated_beside(path, file.weights.keys(), file.metadata)
        try:
            return family.load(path, weights, metadata, runtime)
        except _MISSHAPEN as error:
            raise ModelFileError(
                f'"{path.name}" is no whole control model of the kind {family.id}',
                field="model",
                found=f"{type(error).__name__}: {error}",
                remedy="download the file again, or choose another control model",
            ) from error
    kind = kind_of(file.weights.keys())
    if kind is not None and kind.backbone:
        raise ModelFileError(
            f'"{path.name}" controls {kind.backbone}, not Stable Diffusion',
            field="model",
            found=kind.name,
            remedy="choose a control model for SD 1.x, SD 2.x or SDXL, whose U-Nets are what can be steered here",
        )
    raise ModelFileError(
        f'"{path.name}" is not a control model this version can use',
        field="model",
        found=f"{describe_kind(file.weights.keys())}. {_sought(weights, families)}",
        remedy="choose another model for this unit",
    )


def _sought(weights: Mapping[str, Tensor], families: list[ControlFamily]) -> str:
    """The kinds that are known, with what the file lacks for the nearest of those of which it has something."""
    keys, near = weights.keys(), list[tuple[int, str]]()
    for family in families:
        condition = family.condition
        missing = condition.missing(keys)
        if len(missing) < len(condition.all_of) + bool(condition.any_of):
            near.append((len(missing), f"{family.id} ({', '.join(missing)})"))
    known = f"Sought: {', '.join(family.id for family in families)}"
    return f"{known}; nearest: {'; '.join(text for _, text in sorted(near)[:_SHOWN])}" if near else known


def _ordered(families: dict[str, ControlFamily]) -> list[ControlFamily]:
    """Topological order by `before`; ties by id."""
    waiting = dict(sorted(families.items()))
    ordered: list[ControlFamily] = []
    while waiting:
        free = [f for f in waiting.values() if not any(f.id in other.before for other in waiting.values())]
        if not free:
            raise ValueError(f"control model families ask to be before one another: {', '.join(waiting)}")
        ordered.append(waiting.pop(free[0].id))
    return ordered
