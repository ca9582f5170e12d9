"""A register of replaced functions, so that each is replaced once and can be put back."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

originals: dict[Any, dict[tuple[Any, str], Any]] = defaultdict(dict)


def patch(key: Any, obj: Any, field: str, replacement: Any) -> Any:
    """Put `replacement` into obj.field and return what was there; RuntimeError when `key` did so already."""
    if (obj, field) in originals[key]:
        raise RuntimeError(f"patch for {field} is already applied")
    original = getattr(obj, field)
    originals[key][obj, field] = original
    setattr(obj, field, replacement)
    return original


def undo(key: Any, obj: Any, field: str) -> None:
    """Put back what `patch` replaced; RuntimeError when there is nothing to undo."""
    if (obj, field) not in originals[key]:
        raise RuntimeError(f"there is no patch for {field} to undo")
    setattr(obj, field, originals[key].pop((obj, field)))


def original(key: Any, obj: Any, field: str) -> Any:
    return originals[key].get((obj, field))
