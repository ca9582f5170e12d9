"""What a request held, as its answer can hold it: JSON has no NaN, UTF-8 no halves of letters, Python few levels."""

from __future__ import annotations

import math
from typing import Any

DEEPEST = 40
_LONGEST_INTEGER = 1000
"""Bits; some readers of JSON fail at longer ones."""


def echo(value: Any, depth: int = 0) -> Any:
    """`value` without what cannot be written: NaN and infinity become None, deep levels their kind."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if value.bit_length() <= _LONGEST_INTEGER else None
    if depth >= DEEPEST and isinstance(value, (dict, list, tuple)):
        return type(value).__name__
    if isinstance(value, dict):
        return {echo(str(key)): echo(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [echo(item, depth + 1) for item in value]
    return value
