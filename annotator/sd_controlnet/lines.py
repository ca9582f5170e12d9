"""What the preprocessors of soft edges and scribbles do with a network's answer."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .images import Pixels

_LINES = (
    np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], np.uint8),
    np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0]], np.uint8),
    np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.uint8),
    np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.uint8),
)


def thin(edges: Pixels, threshold: float, sigma: float) -> Pixels:
    """(H, W) uint8 to 0 and 255: crests of the blurred `edges` along any of four directions, where above `threshold`.

    The "nms" of ControlNet 1.1's annotators.
    """
    blurred = cv2.GaussianBlur(edges.astype(np.float32), (0, 0), sigma)
    crest = np.zeros(edges.shape, bool)
    for line in _LINES:
        crest |= cv2.dilate(blurred, line) == blurred
    return (crest & (blurred > threshold)).astype(np.uint8) * np.uint8(255)


def scribble(edges: Pixels) -> Pixels:
    """(H, W) uint8 soft edges as the thick strokes on which the scribble models were trained, 0 and 255."""
    strokes = cv2.GaussianBlur(thin(edges, 127, 3.0), (0, 0), 3.0)
    return (strokes > 4).astype(np.uint8) * np.uint8(255)


def safe_step(edges: NDArray[Any], steps: int = 2) -> NDArray[Any]:
    """0..1 in `steps` equal steps: leaves no fine detail in which a picture could hide."""
    return (edges.astype(np.float32) * float(steps + 1)).astype(np.int32).astype(np.float32) / float(steps)
