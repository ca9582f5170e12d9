"""Finds the effects in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from .base import Effect, Setup

MakeEffect = Callable[[Setup], Effect]


@cache
def discover() -> Mapping[str, MakeEffect]:
    """Every module of this folder with an `EFFECT`, under each of the names by which preprocessors ask for it."""
    package = __name__.rpartition(".")[0]
    folder = str(Path(__file__).parent)
    effects: dict[str, MakeEffect] = {}
    for info in pkgutil.iter_modules([folder]):
        module = importlib.import_module(f"{package}.{info.name}")
        for name in getattr(module, "IDS", ()):
            if name in effects:
                raise ValueError(f'two effects are called "{name}"')
            effects[name] = module.EFFECT
    return effects
