"""What kind of picture is given as a map, told from its pixels: a mistake is said before it costs a job."""

from __future__ import annotations

from enum import Enum

import numpy as np

from .images import Pixels

_DARK, _LIGHT = 64, 191
_GREY_SPREAD = 24
"""Channels that differ by less are of no colour."""
_LINES = 0.85
"""The part of a drawing in lines that is black or white."""
_PAPER = 0.6
"""The part of it that is its paper."""
_FLAT = 0.9
"""The part of a picture in flat colours that its sixteen commonest make up."""
_SIDE = 256
_SAME = 3
"""Levels by which pixels of one colour may differ, as in a JPEG."""


class Look(str, Enum):
    """What a picture looks like."""

    empty = "empty"
    light_lines = "white lines on black"
    dark_lines = "dark lines on white"
    flat = "flat colours"
    photograph = "a photograph"


def look_of(pixels: Pixels) -> Look:
    """(H, W, 3) uint8 -> what it looks like.

    Lines: almost everything is black or white and one of them is the paper. Flat: a few colours make up the rest, as in
    a segmentation map or a drawing in colours.
    """
    if bool((np.ptp(pixels.reshape(-1, 3), axis=0) <= _SAME).all()):
        return Look.empty
    seen = _thinned(pixels)
    grey = np.ptp(seen, axis=1) < _GREY_SPREAD
    level = seen.mean(axis=1)
    dark, light = float((grey & (level < _DARK)).mean()), float((grey & (level > _LIGHT)).mean())
    if dark + light >= _LINES and max(dark, light) >= _PAPER:
        return Look.light_lines if dark > light else Look.dark_lines
    colours = np.unique(seen.astype(np.uint8) >> 3, axis=0, return_counts=True)[1]
    return Look.flat if np.sort(colours)[-16:].sum() >= _FLAT * len(seen) else Look.photograph


def _thinned(pixels: Pixels) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """(n, 3): rows and columns left out, none mixed, so that hard edges stay hard."""
    step = max(1, -(-max(pixels.shape[:2]) // _SIDE))
    return pixels[::step, ::step].reshape(-1, 3).astype(np.int16)
