"""The order in which people and hosts count: 2 before 10."""

from __future__ import annotations

import re

_DIGITS = re.compile("([0-9]+)")  # ASCII only: "²" is a digit to Python and no number


def natural_key(text: str) -> tuple[list[int | str], str]:
    """Sort key: numbers by value, letters without case (A1111's `natural_sort_key`), ties by the text itself."""
    parts = _DIGITS.split(text)  # text and number in turn, so that like stands against like
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(parts)], text
