"""Putting something around a function of the embedded host."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


def replace(owner: Any, name: str, made: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put `made(original)` in the place of a function or method."""
    original = getattr(owner, name)
    setattr(owner, name, wraps(original)(made(original)))
