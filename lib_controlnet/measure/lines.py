"""Maps of lines: canny, lineart, soft edges, scribbles, MLSD.

F1 without tolerance is ControlNet++'s (liming-ai/ControlNet_Plus_Plus, `eval/`), over all pixels; near 0.35 it is good
control already, because a line that is one pixel off counts twice as wrong. F1 within 2 pixels says what an eye does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..core.images import Pixels
from ..core.preprocessors import Detection
from .score import Field, Mask, Pair, Score, nothing, pair
from .ssim import ms_ssim

TOLERANCE = 2
WHITE = 127
"""A line is what is brighter in some channel."""
_FAINT = 16
"""A map that is nowhere brighter than this is empty."""


@dataclass(frozen=True)
class EdgeScore:
    """Shares of the lines that were found rightly, and of those wanted that were found."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def edge_score(found: Mask, wanted: Mask, tolerance: float = TOLERANCE, inside: Mask | None = None) -> EdgeScore:
    """Lines (h, w) bool against lines: a pixel counts as met within `tolerance` pixels (Euclidean).

    Only pixels inside are counted, and they may be met by lines outside. Nothing found, or nothing wanted, scores 0
    unless both are empty.
    """
    mine, theirs = (found, wanted) if inside is None else (found & inside, wanted & inside)
    if not mine.any() and not theirs.any():
        return EdgeScore(1.0, 1.0)
    return EdgeScore(_share(mine, wanted, tolerance), _share(theirs, found, tolerance))


@dataclass(frozen=True)
class Lines:
    """The metrics of maps whose lines are bright on dark."""

    kind: str = "lines"
    main: str = "f1_tolerant"
    tolerance: int = TOLERANCE

    @property
    def better(self) -> Mapping[str, bool]:
        return dict.fromkeys(("f1", "f1_tolerant", "precision", "recall", "ms_ssim"), True)

    def compare(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Score:
        """As `Metric.compare`. Where the wanted map is faint everywhere the adherence rests on MS-SSIM."""
        maps = pair(found, wanted, inside)
        if maps.empty:
            return nothing(self.kind, self.main, self.better, maps.size)
        similar = ms_ssim(_grey(maps.found), _grey(maps.wanted), maps.inside)
        measured = {"size": maps.size, "ms_ssim": f"MS-SSIM of the maps in 0..1, {similar.scales} scales"}
        if similar.value is None:
            measured["ms_ssim"] = "not taken: what is scored is smaller than its window of 11 pixels"
        if not bright(maps.wanted).any() and maps.wanted[maps.inside].max() > _FAINT:
            names = ("f1", "f1_tolerant", "precision", "recall")
            measured |= dict.fromkeys(names, "not taken: the wanted map is nowhere brighter than half")
            values = {**dict.fromkeys(names), "ms_ssim": similar.value}
            return Score(self.kind, values, measured, "ms_ssim", similar.value)
        exact = edge_score(bright(maps.found), bright(maps.wanted), 0, maps.inside)
        near = edge_score(bright(maps.found), bright(maps.wanted), self.tolerance, maps.inside)
        within = f"within {self.tolerance} pixels (Euclidean), lines brighter than {WHITE}"
        measured |= {
            "f1": f"F1 over all pixels, no tolerance, lines brighter than {WHITE}",
            "f1_tolerant": f"F1 {within}",
            "precision": f"share of the lines found that were wanted, {within}",
            "recall": f"share of the lines wanted that were found, {within}",
        }
        values = {
            "f1": exact.f1, "f1_tolerant": near.f1, "precision": near.precision, "recall": near.recall,
            "ms_ssim": similar.value,
        }  # fmt: skip
        return Score(self.kind, values, measured, self.main, near.f1)

    def followed(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Field:
        """Lines wanted that were found are 1; those that were not, and those found that were not wanted, -1."""
        maps = pair(found, wanted, inside)
        mine, theirs = _lines(maps)
        good = theirs & (_distance(mine) <= self.tolerance)
        wrong = (theirs & ~good) | (mine & (_distance(theirs) > self.tolerance))
        return np.where(maps.inside, good.astype(np.float32) - wrong.astype(np.float32), np.float32(0))


def bright(map_: Pixels) -> Mask:
    """The lines of a map (h, w, 3)."""
    return map_.max(axis=2) > WHITE


def _lines(maps: Pair) -> tuple[Mask, Mask]:
    return bright(maps.found), bright(maps.wanted)


def _share(lines: Mask, others: Mask, tolerance: float) -> float:
    """Of `lines`, how many have one of `others` within the tolerance."""
    if not lines.any() or not others.any():
        return 0.0
    return float((_distance(others)[lines] <= tolerance).mean())


def _grey(map_: Pixels) -> Any:
    return map_.max(axis=2).astype(np.float64) / 255


def _distance(lines: Mask) -> Any:
    """Distance of every pixel to the nearest line pixel; infinite where there is none."""
    if not lines.any():
        return np.full(lines.shape, np.inf, np.float32)
    return cv2.distanceTransform((~lines).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
