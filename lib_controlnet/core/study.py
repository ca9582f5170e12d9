"""What a job is to find out before it makes its pictures: the weight that reaches a target, floor and ceiling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import cast

from .errors import UnitError


class Question(str, Enum):
    """What is asked."""

    weight = "weight"
    """Which least weight of a unit reaches the target?"""
    bounds = "bounds"
    """How well would the picture follow without the unit, and at best?"""
    seen = "seen"
    """What is the map taken for without a prompt, and what helps where that is not what the prompt says?"""


@dataclass(frozen=True)
class Study:
    """what: the question. unit: of which one; `bounds` is asked for all. target: the adherence wanted, 0..1.

    highest: the largest weight that is tried. steps: of the trials, 0 for the job's own. shorten: the least range is
    looked for too. nonce: the page gives each of its requests another, and a request that comes again is none.
    """

    what: Question
    unit: int = 0
    target: float = 0.8
    highest: float = 1.0
    steps: int = 0
    shorten: bool = False
    nonce: str = ""


_BOUNDS: Mapping[str, tuple[float, float]] = {
    "unit": (0, 99), "target": (0.0, 1.0), "highest": (0.01, 2.0), "steps": (0, 150),
}  # fmt: skip


def read_study(given: object) -> Study | None:
    """A mapping with Study's fields, or its JSON; None for nothing. Raises UnitError."""
    if given in (None, "", {}):
        return None
    if isinstance(given, Study):
        return given
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise _wrong(f"no JSON ({error})") from None
    if not isinstance(given, Mapping):
        raise _wrong(f"{type(given).__name__}")
    values = {str(key): value for key, value in cast("Mapping[object, object]", given).items()}
    known = [field.name for field in fields(Study)]
    unknown = [name for name in values if name not in known]
    if unknown or "what" not in values:
        raise _wrong(f"the fields {', '.join(values) or 'none'}", f"the fields are {', '.join(known)}")
    if values["what"] not in [question.value for question in Question]:
        raise _wrong(
            f"what: {values['what']!r}", f"what is one of {', '.join(question.value for question in Question)}"
        )
    numbers = {name: _number(name, values[name]) for name in _BOUNDS if name in values}
    whole = {name: int(numbers[name]) for name in ("unit", "steps") if name in numbers}
    shorten = {"shorten": _truth(values["shorten"])} if "shorten" in values else {}
    nonce = {"nonce": str(values["nonce"])} if "nonce" in values else {}
    return Study(Question(values["what"]), **{**numbers, **whole, **shorten, **nonce})  # type: ignore[arg-type]


def _number(name: str, value: object) -> float:
    low, high = _BOUNDS[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise _wrong(f"{name}: {value!r}", f"{name} is a number from {low:g} to {high:g}")
    return float(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(f"shorten: {value!r}", "shorten is true or false")
    return value


def _wrong(
    found: str, remedy: str = 'send an object such as {"what": "weight", "unit": 0, "target": 0.8}'
) -> UnitError:
    return UnitError("this is no question that a job can answer", field="study", found=found, remedy=remedy)
