"""What depth networks and maps of normals have in common."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .images import Pixels

_DEPTH_OF_NORMALS = 2.0 * np.pi
"""The constant z of ControlNet's normals, in the unit of the depth's gradient."""


def stretched(depth: NDArray[Any]) -> Pixels:
    """(H, W) float to 0..255: the least becomes 0, the greatest 255; a flat depth becomes 0."""
    depth = depth - depth.min()
    greatest = depth.max()
    if not greatest > 0:
        return np.zeros(depth.shape, np.uint8)
    return (depth / greatest * 255.0).clip(0, 255).astype(np.uint8)


def normals(depth: NDArray[Any], background: float) -> NDArray[np.float32]:
    """(H, W) float, greater is nearer, to (H, W, 3) unit normals: x to the left, y up, z to the viewer.

    depth: where its part of the range is less than `background`, the normal looks at the viewer. The formula of
    ControlNet 1.0's annotator "midas": Sobel gradients beside a constant.
    """
    depth = depth.astype(np.float32)
    x = cv2.Sobel(depth, cv2.CV_32F, 1, 0, ksize=3)
    y = cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3)
    from_back = depth - depth.min()
    behind = from_back < background * from_back.max()
    x[behind] = 0
    y[behind] = 0
    found = np.stack([x, y, np.full_like(x, _DEPTH_OF_NORMALS)], axis=2)
    return found / np.sqrt(np.sum(found**2, axis=2, keepdims=True))


def normals_to_pixels(directions: NDArray[Any]) -> Pixels:
    """(H, W, 3) in -1..1 to 0..255."""
    return np.ascontiguousarray((directions * 127.5 + 127.5).clip(0, 255).astype(np.uint8))
