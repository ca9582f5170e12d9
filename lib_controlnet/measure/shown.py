"""A map of where control was followed, over the picture: green followed, red not."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from ..core.images import Pixels
from .score import Field

GREEN, RED = (0, 200, 60), (235, 40, 30)
OPACITY = 0.7
_THIN = 0.2
"""Where so little of the picture is marked, the marks are widened to be seen."""
_GREY = np.array([0.299, 0.587, 0.114])


def error_map(picture: Pixels, field: Field, opacity: float = OPACITY) -> Pixels:
    """`picture` (H, W, 3) in grey with `field` (h, w) over it; what has no mark stays as it is. (H, W, 3) uint8."""
    good, bad = (marks[:, :, None] for marks in _marks(field, (picture.shape[1], picture.shape[0])))
    grey = np.repeat((picture[:, :, :3] @ _GREY)[:, :, None], 3, axis=2)
    share = good / np.maximum(good + bad, 1e-6)
    colour = share * np.array(GREEN) + (1 - share) * np.array(RED)
    mixed = grey + float(np.clip(opacity, 0, 1)) * np.clip(good + bad, 0, 1) * (colour - grey)
    return mixed.clip(0, 255).round().astype(np.uint8)


def overlay(field: Field) -> Pixels:
    """`field` (h, w) to be laid over its picture: green, red and clear, (h, w, 4) uint8."""
    good, bad = _marks(field, (field.shape[1], field.shape[0]))
    colours = np.where((good >= bad)[:, :, None], np.array(GREEN), np.array(RED))
    alpha = 255 * np.clip(good + bad, 0, 1)
    return np.dstack([colours, alpha]).round().astype(np.uint8)


def _marks(field: Field, size: tuple[int, int]) -> tuple[Any, Any]:
    """Where it was followed and where not, (H, W) in 0..1 each, of `size` (width, height)."""
    thin = 0 < float((field != 0).mean()) < _THIN
    good, bad = (_fitted(np.maximum(sign * field, 0), size, thin) for sign in (1, -1))
    if thin:  # widened marks lie over each other: what was not followed is seen
        good = np.where(bad > 0, 0, good)
    return good, bad


def _fitted(field: Any, size: tuple[int, int], thin: bool) -> Any:
    """(H, W) in 0..1, widened by a pixel each way where it is thin."""
    side = 1 + 2 * max(1, min(size) // 256)
    wide = np.asarray(cv2.dilate(field, np.ones((side, side), np.uint8))) if thin else np.asarray(field)
    return np.asarray(cv2.resize(wide, size, interpolation=cv2.INTER_NEAREST if thin else cv2.INTER_LINEAR))
