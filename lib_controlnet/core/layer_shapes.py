"""Shapes of layer weights that the panel offers; the numbers can be edited afterwards.

The names and the formulas of the easing shapes are those of the IP-Adapter weight types that users know; here they go
over the residuals of a control model, in the order of the encoder with the middle last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .schedule import soft_ramp

WEAK = 0.2
"""What a "weak" part of the network gets."""
OFF = "Off: from weight and control mode"

Shape = Callable[[int], tuple[float, ...]]


def _part(index: int, outputs: int) -> float:
    return index / max(outputs - 1, 1)


def _eased(curve: Callable[[float], float]) -> Shape:
    return lambda outputs: tuple(0.05 + 0.95 * curve(_part(i, outputs)) for i in range(outputs))


def _only(keep: Callable[[float, bool], bool], other: float) -> Shape:
    """1 where `keep(part of the encoder 0..1, is the middle)`, else `other`."""
    return lambda outputs: tuple(
        1.0 if keep(_part(i, outputs - 1), i == outputs - 1) else other for i in range(outputs)
    )


SHAPES: Mapping[str, Shape] = {
    "Uniform": lambda outputs: (1.0,) * outputs,
    "Soft: deeper layers weigh more": soft_ramp,
    "Ease in: shallow layers weigh more": _eased(lambda part: 1 - part),
    "Ease out: deep layers weigh more": _eased(lambda part: part),
    "Ease in-out: the middle of the encoder weighs more": _eased(lambda part: 1 - abs(2 * part - 1)),
    "Reverse in-out: its ends weigh more": _eased(lambda part: abs(2 * part - 1)),
    "Weak encoder": _only(lambda _part, middle: middle, WEAK),
    "Weak middle block": _only(lambda _part, middle: not middle, WEAK),
    "Composition: deep layers only": _only(lambda part, middle: middle or part >= 0.5, 0.0),
    "Details: shallow layers only": _only(lambda part, middle: not middle and part < 0.5, 0.0),
}
"""Name -> number of residuals -> their factors."""


def shaped(name: str, outputs: int, weight: float) -> tuple[float, ...] | None:
    """The weights of a shape, rounded to 3 digits as the panel shows them; None where it is `OFF`."""
    shape = SHAPES.get(name)
    return None if shape is None else tuple(round(weight * factor, 3) for factor in shape(outputs))
