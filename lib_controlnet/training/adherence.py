"""How well pictures follow their conditions, and the step at which a training suddenly makes them do so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..measure.lines import bright, edge_score
from ..measure.metrics import metric_of
from .pictures import Pixels

_JUMP, _ABOVE_A_LINE, _STAYS, _QUIET = 0.2, 2.5, 0.75, 0.5
_LATER = 2
_LOOKS = (1, 2)
_LEAST_REACH = 0.1


def adherence(found: Pixels, wanted: Pixels, measure: str) -> float:
    """0..1: the map `found` of a generated picture against the map `wanted`, both (h, w, 3) uint8.

    "lines": F1 of what is brighter than half, within 2 pixels. "pixels": 1 minus the mean difference. Others: the
    metric of that kind of map (measure/metrics.py).
    """
    if measure == "lines":
        return edge_score(bright(found), bright(wanted)).f1
    if measure == "pixels":
        return 1 - float(np.abs(found.astype(np.float64) - wanted).mean()) / 255
    return metric_of(measure).compare(found, wanted).adherence or 0.0


class Point(NamedTuple):
    """A look: adherence of samples drawn with their own maps, and of samples drawn with other pictures' maps to the
    maps that they were not given."""

    step: int
    matched: float
    mismatched: float

    @property
    def control(self) -> float:
        """What the map itself brings: prompt, seed and what all pictures have in common are in both."""
        return self.matched - self.mismatched


@dataclass(frozen=True)
class Convergence:
    """Sudden convergence: not yet at step `after`, there at step `step`, where the map brought `value`, `rise` more
    than before."""

    after: int
    step: int
    value: float
    rise: float


def find_convergence(curve: Sequence[Point], floor: float, ceiling: float) -> Convergence | None:
    """The jump in what the map brings, named by its two looks; None where there is none.

    A jump is a rise of a fifth of the way from `floor` (adherence without control) to `ceiling` (that of the true
    pictures after the auto-encoder, which no training can pass) from one look to the next, or over two where a look
    fell into its midst; it is far steeper than the curve as a whole, for else that only climbs; little came before it,
    at two looks at least, for else the curve climbs from its beginning and only ever slower; and it stays, at this look
    and at two later ones at least.
    """
    reach, values = ceiling - floor, [point.control for point in curve]
    if reach < _LEAST_REACH or len(curve) < _LATER + 2:
        return None
    for looks in _LOOKS:
        at = _jump(values, looks, reach)
        if at is not None:
            rise = values[at] - values[at - looks]
            return Convergence(curve[at - looks].step, curve[at].step, round(values[at], 4), round(rise, 4))
    return None


def _jump(values: Sequence[float], looks: int, reach: float) -> int | None:
    """Where the first jump over so many looks ends."""
    usual = looks * (values[-1] - values[0]) / (len(values) - 1)
    for start in range(1, len(values) - looks - _LATER):
        before, later = values[: start + 1], values[start + looks :]
        rise = later[0] - values[start]
        quiet = max(before) - min(before) <= _QUIET * rise
        stays = min(later) >= values[start] + _STAYS * rise
        if quiet and stays and rise >= _JUMP * reach and rise >= _ABOVE_A_LINE * usual:
            return start + looks
    return None


def half_way(curve: Sequence[Point], floor: float, ceiling: float) -> int | None:
    """The first step from which on the map brought half of what it can at every look; None before."""
    found = None
    for point in reversed(curve):
        if ceiling - floor < _LEAST_REACH or point.control < (ceiling - floor) / 2:
            break
        found = point.step
    return found
