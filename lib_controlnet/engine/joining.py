"""Units that share a control model and take turns for nothing: their hints pass its network together, once a call."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from math import isclose

from ..families.base import BoundControl
from .active import Active
from .parts import Part

Shares = tuple[float, ...]


class Joining:
    """The joint controls of one pass; each lasts as long as the same units act in the same proportion."""

    def __init__(self) -> None:
        self._made: dict[tuple[BoundControl, ...], tuple[Shares, BoundControl | None]] = {}

    def joined(self, giving: Sequence[Active]) -> list[Active]:
        """`giving`, in which those that can be computed together are one, in the place of their first."""
        groups: dict[Hashable, list[Active]] = {}
        for one in giving:
            groups.setdefault(_together(one), []).append(one)
        return [part for group in groups.values() for part in self._one_of(group)]

    def _one_of(self, group: Sequence[Active]) -> Sequence[Active]:
        strongest = max(group, key=lambda one: max(map(abs, one.call.weights)))
        shares = tuple(_share(one.call.weights, strongest.call.weights) for one in group)
        known = tuple(share for share in shares if share is not None)
        if len(group) < 2 or len(known) < len(shares):
            return group
        bounds = tuple(one.bound for one in group)
        made = self._made.get(bounds)
        if made is None or made[0] != known:
            made = self._made[bounds] = (known, bounds[0].joint(bounds, known))
        joint, first = made[1], group[0]
        if joint is None:
            return group
        call = replace(first.call, weights=strongest.call.weights)
        along = tuple(one.run for one in group[1:])
        return [Active(first.run, Part(first.part.model, joint), call, along, origin=(bounds, known))]


def _together(one: Active) -> Hashable:
    """Equal for what may be computed together; a unit that keeps to a region or to pieces of a hint is alone."""
    joins = type(one.bound).joint is not BoundControl.joint and one.call.region is None and one.run.tile is None
    return (id(one.part.model), one.call.rows, one.call.strengths) if joins else one


def _share(weights: Sequence[float], strongest: Sequence[float]) -> float | None:
    """By how much the one list is weaker than the other, None where that differs from layer to layer."""
    place = max(range(len(strongest)), key=lambda at: abs(strongest[at]))
    share = weights[place] / strongest[place]
    alike = all(
        isclose(own, share * full, rel_tol=1e-6, abs_tol=1e-9) for own, full in zip(weights, strongest, strict=True)
    )
    return share if alike else None
