"""Pictures that are not what a control model expects, told before a job: a photograph for a map of lines, and such.

Only what is plain is said: a warning that is wrong once is not read again. The thresholds keep apart what preprocessors
of this repository make of photographs, and the photographs themselves (`tests/measure/test_suspect.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..core.images import Pixels

EMPTY, INVERTED, PHOTO = "empty", "inverted", "photo"
_SIDE = 256
_PLAIN = 8
"""A map whose values all lie within so many of 255 shows nothing."""
_NOTHING = 0.0005
_MIDDLE = (40, 215)


@dataclass(frozen=True)
class Suspicion:
    """what: "empty", "inverted" or "photo". text: a sentence for the user, with what to do."""

    what: str
    text: str


def suspicion(map_: Pixels, kind: str) -> Suspicion | None:
    """What is wrong with a map (h, w, 3 or 4) uint8 that is to be of this kind; None where nothing is plainly wrong.

    kind: as `measure.metrics.kind_of` says; of kinds in which any picture is right nothing is said.
    """
    judge = _JUDGES.get(kind)
    if judge is None or not map_.size:
        return None
    return judge(_small(map_))


def _lines(map_: Pixels) -> Suspicion | None:
    grey = map_.max(axis=2)
    if int(grey.max()) - int(grey.min()) < _PLAIN or float((grey > 32).mean()) < _NOTHING:
        return _empty("lines")
    if float((grey >= _MIDDLE[1]).mean()) > 0.6 and float(np.median(np.asarray(grey))) >= _MIDDLE[1]:
        return Suspicion(
            INVERTED,
            "the map looks inverted: dark lines on white, where white lines on black are expected; "
            'take the preprocessor "invert"',
        )
    middle = float(((grey > _MIDDLE[0]) & (grey < _MIDDLE[1])).mean())
    if middle > 0.6 or (_coloured(map_) and middle > 0.25):
        return Suspicion(
            PHOTO,
            "the map looks like a photograph, where white lines on black are expected; "
            "take a preprocessor that draws lines",
        )
    return None


def _depth(map_: Pixels) -> Suspicion | None:
    grey = map_.max(axis=2)
    if int(grey.max()) - int(grey.min()) < _PLAIN:
        return _empty("depth")
    if _coloured(map_):
        return Suspicion(
            PHOTO, "the map is coloured, where grey depth is expected (near is white); take a preprocessor for depth"
        )
    if _two_levels(grey) and _line_share(grey) > 0.9:
        return Suspicion("lines", "the map looks like a drawing of lines, where depth is expected")
    return None


def _normals(map_: Pixels) -> Suspicion | None:
    flat = map_.reshape(-1, 3).astype(np.float64)
    if int(np.ptp(map_, axis=(0, 1)).max()) < _PLAIN:
        return _empty("normals")
    length = np.linalg.norm(flat[flat.max(axis=1) > _PLAIN] / 127.5 - 1, axis=1)  # black is a background
    if float((np.abs(length - 1) < 0.25).mean()) < 0.7:
        return Suspicion(
            PHOTO, "the colours of the map are no normals (their length is not 1); take a preprocessor for normals"
        )
    return None


def _segments(map_: Pixels) -> Suspicion | None:
    packed = map_.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    colours, counts = np.unique(packed, return_counts=True)
    if len(colours) == 1:
        return _empty("classes")
    often = np.sort(counts)[::-1][:64].sum() / packed.size
    if float(often) < 0.5:
        return Suspicion(
            PHOTO,
            "the map has as many colours as a photograph, where one colour for each class is expected; "
            "take a preprocessor for segmentation",
        )
    return None


def _poses(map_: Pixels) -> Suspicion | None:
    grey = map_.max(axis=2)
    if float((grey > 32).mean()) < _NOTHING:
        return Suspicion(EMPTY, "the map is empty: nobody was found in the picture, and so the model is told")
    if float((grey <= 16).mean()) < 0.3:
        return Suspicion(
            PHOTO, "the map is no skeleton on black; take a preprocessor for poses, or the drawing that one made"
        )
    return None


def _pictures(map_: Pixels) -> Suspicion | None:
    return _empty("a picture") if int(np.ptp(map_, axis=(0, 1)).max()) < _PLAIN else None


_JUDGES: Mapping[str, Callable[[Pixels], Suspicion | None]] = {
    "lines": _lines,
    "depth": _depth,
    "normals": _normals,
    "segments": _segments,
    "poses": _poses,
    "pictures": _pictures,
}


def _empty(what: str) -> Suspicion:
    return Suspicion(
        EMPTY,
        f"the map is empty: it is of one colour and shows no {what.removeprefix('a ')}, and so the model is told",
    )


def _small(map_: Pixels) -> Pixels:
    """(h, w, 3), by leaving out pixels: lines and classes keep their colours."""
    rgb = np.repeat(map_.reshape(*map_.shape[:2], 1), 3, axis=2) if map_.ndim == 2 or map_.shape[2] == 1 else map_
    step = max(1, min(rgb.shape[:2]) // _SIDE)
    return np.ascontiguousarray(rgb[::step, ::step, :3])


def _coloured(map_: Pixels) -> bool:
    spread = map_.max(axis=2).astype(int) - map_.min(axis=2)
    return float((spread > 24).mean()) > 0.1


def _two_levels(grey: Any) -> bool:
    return float(((grey <= 16) | (grey >= 239)).mean()) > 0.98


def _line_share(grey: Any) -> float:
    """Share of the bright pixels that an opening by 5x5 pixels removes."""
    white = (grey > 127).astype(np.uint8)
    if not white.any() or white.mean() > 0.5:
        return 0.0
    kept = cv2.morphologyEx(white, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    return 1 - float(kept.sum()) / float(white.sum())
