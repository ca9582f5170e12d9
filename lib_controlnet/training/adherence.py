"""How well pictures follow their conditions, and the step at which a training suddenly makes them do so."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..measure.lines import bright, edge_score
from .pictures import Pixels

_CONVERGED = 0.5


def adherence(found: Pixels, wanted: Pixels, measure: str) -> float:
    """0..1: the map `found` of a generated picture against the map `wanted`, both (h, w, 3) uint8.

    "lines": F1 of what is brighter than half, within 2 pixels. "pixels": 1 minus the mean difference (depth, normals,
    segmentation).
    """
    if measure == "lines":
        return edge_score(bright(found), bright(wanted)).f1
    return 1 - float(np.abs(found.astype(np.float64) - wanted).mean()) / 255


@dataclass(frozen=True)
class Convergence:
    """Sudden convergence: not yet at step `after`, there at step `step`, where adherence was `value`; `rise` is the
    largest rise between two looks, which ended at `steepest`."""

    after: int
    step: int
    value: float
    rise: float
    steepest: int


def find_convergence(curve: Sequence[tuple[int, float]], ceiling: float) -> Convergence | None:
    """The step at which samples began to follow the condition, in a curve of (step, adherence) that starts without
    control; None while they do not.

    That is the first look at which half of the way is gone from the level without control to `ceiling`, the adherence
    of the true pictures after the auto-encoder, which no training can pass.
    """
    if len(curve) < 2:
        return None
    floor = curve[0][1]
    wanted = floor + _CONVERGED * (ceiling - floor)
    for (before, _), (step, value) in itertools.pairwise(curve):
        if value >= wanted and value > floor:
            rise, steepest = max((b[1] - a[1], b[0]) for a, b in itertools.pairwise(curve))
            return Convergence(before, step, value, rise, steepest)
    return None
