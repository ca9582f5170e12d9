"""The numbers, switches and texts of a unit as callers write them: JSON, forms, NumPy, words."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from .errors import UnitError
from .schedule import WeightCurve

_BOOLS: tuple[type, ...] = (bool, np.bool_)
_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}
_HUGE = 10**9
"""A resolution beyond it is as good as this one."""


MAX_POINTS = 200
"""Of a weight curve; more than there are steps say nothing."""
_POINTS = "send [[progress, weight], …] with progress from 0 to 1 and weight from 0 to 2"


def read_bool(value: object) -> bool:
    """true, 1, "yes" and their like. Raises UnitError, as all of these."""
    if isinstance(value, _BOOLS):
        return bool(value)
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    raise UnitError("this is neither true nor false", found=value, remedy="send true or false")


def read_number(value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number within `low` and `high`, as such or as text."""
    number = _number(value, _range(low, high))
    if not math.isfinite(number) or not low <= number <= high:
        raise UnitError("this number cannot be used", found=value, remedy=f"send a number{_range(low, high)}")
    return number


def _number(value: object, within: str) -> float:
    """Infinite where a whole number is too large for a float."""
    if isinstance(value, _BOOLS) or not isinstance(value, (numbers.Real, str)):
        raise UnitError("this is not a number", found=value, remedy=f"send a number{within}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]
    except ValueError:
        raise UnitError("this is not a number", found=value, remedy=f"send a number{within}") from None


def _range(low: float, high: float) -> str:
    return f" from {low:g} to {high:g}" if math.isfinite(low) and math.isfinite(high) else ""


def read_parameter(value: object) -> float:
    """A preprocessor's number, which is held to its slider when the preprocessor is known."""
    number = _number(value, "")
    if not math.isfinite(number) and not isinstance(value, int):  # JSON has no such number, and none can answer it
        raise UnitError("this number cannot be used", found=value, remedy="send a number, or -1 for the default")
    return number


def read_resolution(value: object) -> int:
    """A whole number of pixels, or what the preprocessor will not take for one."""
    number = max(-_HUGE, min(read_parameter(value), _HUGE))
    if number != int(number):
        raise UnitError("a resolution is a whole number of pixels", found=value, remedy="send a whole number")
    return int(number)


def read_text(value: object, nothing: str) -> str:
    """A name without quotes; `nothing` for "" and "none" in any case."""
    if not isinstance(value, str):
        raise UnitError("this is not a name", found=value, remedy="send text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UnitError("this is not a name: it holds halves of letters", found=value, remedy="send valid Unicode")
    name = value.strip().strip('"').strip()
    return nothing if name.lower() in ("", "none") else name


def read_weights(value: object) -> tuple[float, ...] | None:
    """Numbers as a list, an array or a text with commas or spaces between them; None where there are none."""
    if isinstance(value, str):
        value = [part for part in re.split(r"[\s,/]+", value.strip(" []")) if part]
    if isinstance(value, np.ndarray):
        value = cast("list[object]", cast("np.ndarray[Any, Any]", value).tolist())
    if not isinstance(value, (list, tuple)):
        raise UnitError("this is not a list of numbers", found=value, remedy="send [1.0, 0.5, …]")
    return tuple(read_number(item) for item in cast(Sequence[object], value)) or None


def read_curve(value: object) -> WeightCurve | None:
    """Points (progress, weight) as pairs or a text: `0=1/0.5=0.3`, `0:1, 0.5:0.3`, JSON; None where there are none."""
    if isinstance(value, WeightCurve):
        return value
    if isinstance(value, str):
        numbers = [part for part in re.split(r"[\s,;/:=\[\]()]+", value) if part]
        if len(numbers) % 2:
            raise UnitError("a point of the curve has no weight", found=value, remedy=_POINTS)
        value = list(zip(numbers[::2], numbers[1::2], strict=True))
    points = [_point(item) for item in _items(value, _POINTS)]
    if len(points) > MAX_POINTS:
        raise UnitError("the curve has too many points", found=len(points), remedy=f"send at most {MAX_POINTS}")
    late = next((i for i in range(1, len(points)) if points[i][0] < points[i - 1][0]), None)
    if late is not None:
        found = f"{points[late][0]:g} after {points[late - 1][0]:g}"
        raise UnitError("the points of the curve are not in order", found=found, remedy="let their progress rise")
    return WeightCurve(tuple(points)) if points else None


def _point(item: object) -> tuple[float, float]:
    pair = _items(item, _POINTS)
    if len(pair) != 2:
        raise UnitError("a point of the curve is two numbers", found=f"{len(pair)} numbers", remedy=_POINTS)
    try:
        return read_number(pair[0], 0.0, 1.0), read_number(pair[1], 0.0, 2.0)
    except UnitError as error:
        raise UnitError(f"a point of the curve: {error.problem}", found=error.found, remedy=_POINTS) from None


def read_strengths(value: object) -> tuple[float, ...] | None:
    """Numbers from 0 to 2, as `read_weights`."""
    numbers = read_weights(value)
    return None if numbers is None else tuple(read_number(number, 0.0, 2.0) for number in numbers)


def read_places(value: object) -> tuple[tuple[int, float], ...]:
    """Numbers by place: pairs, a mapping, or a text as `0:1, 3:0.5` or `0=1/3=0.5`. In order, each place once."""
    remedy = 'send "place: number, …", as "3: 1, 6: 0.5"'
    if isinstance(value, str):
        numbers = [part for part in re.split(r"[\s,;/:=\[\](){}\"']+", value) if part]
        if len(numbers) % 2:
            raise UnitError("a place has no number", found=value, remedy=remedy)
        value = list(zip(numbers[::2], numbers[1::2], strict=True))
    if isinstance(value, Mapping):
        value = list(cast("Mapping[object, object]", value).items())
    table: dict[int, float] = {}
    for item in _items(value, remedy):
        pair = _items(item, remedy)
        if len(pair) != 2:
            raise UnitError("a place and its number are two numbers", found=f"{len(pair)} numbers", remedy=remedy)
        place = read_number(pair[0], 0.0, 999.0)
        if place != int(place) or int(place) in table:
            raise UnitError("a place is a whole number and given once", found=pair[0], remedy=remedy)
        table[int(place)] = read_number(pair[1], -5.0, 5.0)
    return tuple(sorted(table.items()))


def _items(value: object, remedy: str) -> Sequence[object]:
    if isinstance(value, np.ndarray):
        value = cast("np.ndarray[Any, Any]", value).tolist()
    if not isinstance(value, (list, tuple)):
        raise UnitError("this is not a list of points", found=value, remedy=remedy)
    return cast("Sequence[object]", value)


def read_folder(value: object) -> str:
    """A folder's path; what is no text is none."""
    return value.strip().strip('"') if isinstance(value, str) else ""  # lists and iterators are a peer's own state
