"""The least weight at which a picture follows its map as far as is wanted, in few jobs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

MOST_JOBS = 8
CLOSE = 0.03
"""A target is reached within this; so much more than it is too much."""
HUNDREDTHS = 100
"""Weights are tried in hundredths, as the page's slider has them: a finer answer would be another one in the unit."""
_WIDE = 0.3
"""Over so much of the weight's range adherence is no straight line."""
_GUARD = 0.15
"""An interpolated weight stays so far (in parts of the interval) from both ends."""


@dataclass(frozen=True)
class Point:
    """A job: its weight, and the adherence of its picture."""

    weight: float
    adherence: float


@dataclass(frozen=True)
class Search:
    """weight, adherence: the least weight tried that reaches the target (within `close`), or the one with the most
    adherence where none does. reached: it does. curve: all jobs, by weight. floor: the adherence without control."""

    weight: float
    adherence: float
    reached: bool
    curve: tuple[Point, ...]

    @property
    def floor(self) -> float | None:
        return next((point.adherence for point in self.curve if point.weight == 0.0), None)


def find_weight(
    adherence: Callable[[float], float],
    target: float,
    *,
    highest: float = 1.0,
    most: int = MOST_JOBS,
    close: float = CLOSE,
) -> Search:
    """Asks `adherence` of a weight in hundredths up to `highest` (one job each, the same seed) `most` times at most.

    Adherence need not rise everywhere: what is kept is an interval whose lower end does not reach the target and whose
    upper end does. The next weight is the middle; in a small interval where a straight line would reach the target,
    never near an end, unless that did not halve it last time (a guarded false position).
    Raises ValueError for `most` below 2.
    """
    if most < 2:
        raise ValueError("a search needs two jobs at least: without control, and with all of it")
    points: list[Point] = []

    def ask(weight: float) -> Point:
        points.append(Point(weight, adherence(weight)))
        return points[-1]

    low = ask(0.0)
    top = math.floor(highest * HUNDREDTHS + 1e-6) / HUNDREDTHS
    high = low if low.adherence >= target - close else ask(top)
    if high.adherence >= target - close and high is not low:
        _narrow(ask, low, high, target, close, most - 2)
    return _best(points, target - close)


def _narrow(ask: Callable[[float], Point], low: Point, high: Point, target: float, close: float, left: int) -> None:
    """Brings the upper end down to the target."""
    halve = False
    while left > 0 and high.adherence - target > close:
        width = high.weight - low.weight
        share = 0.5 if halve or width > _WIDE else (target - low.adherence) / (high.adherence - low.adherence)
        weight = _between(low, high, min(max(share, _GUARD), 1 - _GUARD))
        if weight is None:
            return
        point = ask(weight)
        low, high = (low, point) if point.adherence >= target - close else (point, high)
        halve, left = high.weight - low.weight > width / 2, left - 1


def _between(low: Point, high: Point, share: float) -> float | None:
    """The weight at `share` of the interval, strictly between its ends; None where no hundredth lies there."""
    first, last = round(low.weight * HUNDREDTHS) + 1, round(high.weight * HUNDREDTHS) - 1
    at = round((low.weight + share * (high.weight - low.weight)) * HUNDREDTHS)
    return None if first > last else min(max(at, first), last) / HUNDREDTHS


def _best(points: list[Point], enough: float) -> Search:
    reaching = [point for point in points if point.adherence >= enough]
    if reaching:
        best = min(reaching, key=lambda point: point.weight)
    else:  # of equals the strongest: weight 0 would switch the unit off
        best = max(points, key=lambda point: (point.adherence, point.weight))
    return Search(best.weight, best.adherence, bool(reaching), tuple(sorted(points, key=lambda one: one.weight)))
