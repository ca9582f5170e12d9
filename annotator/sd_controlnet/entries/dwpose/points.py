"""Key points in a box: RTMPose and its like (Jiang et al., 2023, arXiv:2303.07399), which say x and y apart (SimCC)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...images import Pixels
from ...onnx_networks import OnnxNetwork
from ...spec import AnnotatorError

_AROUND = 1.25
_MEAN = np.array([123.675, 116.28, 103.53])
_STD = np.array([58.395, 57.12, 57.375])
_BINS = 2
"""Of SimCC in each pixel of the cut-out."""


def find_points(
    image: Pixels, box: NDArray[Any], network: OnnxNetwork, size: tuple[int, int], count: int
) -> NDArray[Any]:
    """(count, 3): x and y in pixels of (H, W, 3) RGB, and how sure. `size`: width and height of what is shown."""
    centre = (box[:2] + box[2:]) / 2
    spread = _of_shape((box[2:] - box[:2]) * _AROUND, size[0] / size[1])
    shown = (cv2.warpAffine(image, _way(centre, spread, size), size, flags=cv2.INTER_LINEAR) - _MEAN) / _STD
    outputs = network(shown.transpose(2, 0, 1)[None].astype(np.float32))
    shapes = [tuple(output.shape) for output in outputs]
    if shapes != [(1, count, side * _BINS) for side in size]:
        raise AnnotatorError(
            f"the network does not find {count} key points in {size[0]}x{size[1]} pixels",
            found=f"it gives {shapes}",
            remedy="get the file again under the name that is listed",
        )
    across, down = outputs[0][0], outputs[1][0]
    sure = np.minimum(across.max(axis=1), down.max(axis=1))
    places = np.stack([across.argmax(axis=1), down.argmax(axis=1)], axis=1).astype(np.float64) / _BINS
    places[sure <= 0] = -1 / _BINS
    return np.concatenate([places / size * spread + centre - spread / 2, sure[:, None]], axis=1)


def _of_shape(spread: NDArray[Any], shape: float) -> NDArray[Any]:
    """Width and height grown to the ratio `shape`."""
    width, height = spread
    if width > height * shape:
        return np.array([width, width / shape])
    return np.array([height * shape, height])


def _way(centre: NDArray[Any], spread: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The transformation of the picture into the cut-out, by three points: the middle, above it, and left of that."""

    def three(middle: NDArray[Any], half: float) -> NDArray[np.float32]:
        x, y = middle
        return np.array([(x, y), (x, y - half), (x - half, y - half)], np.float32)

    width, height = size
    return cv2.getAffineTransform(
        three(centre, float(spread[0]) / 2), three(np.array([width / 2, height / 2]), width / 2)
    )
