"""Bounds of the numbers in a configuration: stated where the option is, checked before anything is read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from .errors import TrainingError


def within(low: float, high: float, default: Any = dataclasses.MISSING) -> Any:
    """A field of numbers from `low` to `high`; without a default it must be given."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


def check_bounds(options: Any, section: str) -> None:
    """Raises TrainingError for the first number (or number in a list) of `options` outside its bounds, or no number."""
    for option in dataclasses.fields(options):
        if "low" not in option.metadata:
            continue
        value, low, high = getattr(options, option.name), option.metadata["low"], option.metadata["high"]
        for number in value if isinstance(value, tuple) else (value,):
            if number is None:
                continue
            if not math.isfinite(number) or not low <= number <= high:
                wanted = f"at least {low:g}" if number < low else f"between {low:g} and {high:g}"
                raise TrainingError(f"{option.name} must be {wanted}", field=f"{section}.{option.name}", found=number,
                                    remedy="correct the configuration")  # fmt: skip


def check_rates(rates: Mapping[str, float]) -> None:
    """Raises TrainingError for a learning rate of a module that is none."""
    for pattern, rate in rates.items():
        if not math.isfinite(rate) or not 0 <= rate <= 1e9:
            raise TrainingError("a module's learning rate must be at least 0", field=f'train.rates."{pattern}"',
                                found=rate, remedy="correct the configuration")  # fmt: skip
