"""Maps whose colours are classes (segmentation), or only keep regions apart (SAM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..core.images import Pixels
from ..core.preprocessors import Detection
from .lines import Lines
from .score import Field, Mask, Pair, Score, nothing, pair

_CORE = np.ones((3, 3), np.uint8)
"""A colour that fills no block of this size is no class: it is the blend of two at their border."""
_MOST = 256


@dataclass(frozen=True)
class Segments:
    """mIoU over the colours: mean over the classes of TP / (TP + FP + FN), those counted that either map has.

    palette: the colours of all classes; those that the two maps show where it is empty.
    """

    kind: str = "segments"
    main: str = "miou"
    palette: Sequence[tuple[int, int, int]] = ()

    @property
    def better(self) -> Mapping[str, bool]:
        return {"miou": True, "accuracy": True}

    def compare(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Score:
        """As `Metric.compare`."""
        maps = pair(found, wanted, inside)
        if maps.empty:
            return nothing(self.kind, self.main, self.better, maps.size)
        mine, theirs, count = self._classes(maps)
        mine, theirs = mine[maps.inside], theirs[maps.inside]
        table = np.bincount(theirs * count + mine, minlength=count * count).reshape(count, count)
        hits = np.diag(table).astype(np.float64)
        union = table.sum(0) + table.sum(1) - hits
        miou = float((hits[union > 0] / union[union > 0]).mean())
        where = "of the palette" if self.palette else "that the maps show"
        measured = {
            "size": maps.size,
            "miou": f"mean IoU over the {int((union > 0).sum())} colours {where}",
            "accuracy": "share of the pixels of the right colour",
        }
        return Score(
            self.kind, {"miou": miou, "accuracy": float(hits.sum() / len(mine))}, measured, self.main, miou
        )  # fmt: skip

    def followed(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Field:
        """1 where the class is the wanted one, -1 elsewhere."""
        maps = pair(found, wanted, inside)
        mine, theirs, _ = self._classes(maps)
        return np.where(maps.inside, np.where(mine == theirs, np.float32(1), np.float32(-1)), np.float32(0))

    def _classes(self, maps: Pair) -> tuple[Any, Any, int]:
        """The class of each pixel of both maps (h, w), and how many classes there are."""
        colours, codes = _colours(maps)
        if self.palette:
            chosen = np.array(self.palette, np.int64)
        else:
            cores = np.unique(np.concatenate([_cores(part) for part in codes]))
            counts = np.bincount(codes.ravel(), minlength=len(colours))
            chosen = colours[cores if 0 < len(cores) <= _MOST else np.argsort(-counts)[:_MOST]]
        nearest = np.array([np.square(chosen - colour).sum(1).argmin() for colour in colours])
        mine, theirs = nearest[codes]
        return mine, theirs, len(chosen)


@dataclass(frozen=True)
class Regions(Lines):
    """Colours that mean nothing but "another region": compared by the borders between them."""

    kind: str = "regions"

    def compare(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Score:
        """As `Lines.compare`, of the borders."""
        maps = pair(found, wanted, inside)
        score = super().compare(_borders(maps.found), _borders(maps.wanted), maps.inside)
        measured = {
            name: text if name == "size" else f"borders of regions: {text}" for name, text in score.measured.items()
        }
        return Score(self.kind, score.values, measured, score.main, score.adherence)

    def followed(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Field:
        """As `Lines.followed`, of the borders."""
        maps = pair(found, wanted, inside)
        return super().followed(_borders(maps.found), _borders(maps.wanted), maps.inside)


def _borders(map_: Pixels) -> Pixels:
    """White where the pixel to the right or below has another colour, (h, w, 3)."""
    lines = np.zeros(map_.shape[:2], bool)
    lines[:, :-1] |= (map_[:, 1:] != map_[:, :-1]).any(axis=2)
    lines[:-1] |= (map_[1:] != map_[:-1]).any(axis=2)
    return np.repeat(np.where(lines, np.uint8(255), np.uint8(0))[:, :, None], 3, axis=2)


def _cores(codes: Any) -> Any:
    """The numbers of the colours (h, w) that fill a block somewhere."""
    numbers = codes.astype(np.float64)
    filled = np.asarray(cv2.erode(numbers, _CORE)) == np.asarray(cv2.dilate(numbers, _CORE))
    return np.unique(np.asarray(codes)[filled])


def _colours(maps: Pair) -> tuple[Any, Any]:
    """The distinct colours (n, 3), and the number of each pixel's in both maps (2, h, w)."""
    both = np.stack([maps.found, maps.wanted]).astype(np.int64)
    packed = both[..., 0] << 16 | both[..., 1] << 8 | both[..., 2]
    distinct, codes = np.unique(packed, return_inverse=True)
    return np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], axis=1), codes.reshape(packed.shape)
