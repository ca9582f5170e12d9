"""Kinds of control that can be trained: one module each, with a `KIND`, found by its name."""

from __future__ import annotations

import importlib
from typing import cast

from .base import Control as Control
from .base import Kind as Kind


def kind_named(name: str) -> Kind:
    """The kind that `control.kind` names."""
    return cast("Kind", importlib.import_module(f"{__name__}.{name}").KIND)
