"""Maps with known answers."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
PALETTE = np.array([(120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50)], np.uint8)


def line_scene(size: int = 256, seed: int = 3) -> Pixels:
    """White lines of one pixel on black."""
    rng = np.random.default_rng(seed)
    map_ = np.zeros((size, size, 3), np.uint8)
    for _ in range(12):
        x, y, to_x, to_y = rng.integers(0, size, 4).tolist()
        cv2.line(map_, (x, y), (to_x, to_y), (255, 255, 255), 1)
    return map_


def smooth(height: int = 96, width: int = 120, seed: int = 5) -> Pixels:
    """A blurred picture over the whole range."""
    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 3).astype(float)
    return ((picture - picture.min()) / np.ptp(picture) * 255).astype(np.uint8)


def noisy(picture: Pixels, amount: int = 30, seed: int = 5) -> Pixels:
    rng = np.random.default_rng(seed)
    return np.clip(picture.astype(int) + rng.integers(-amount, amount + 1, picture.shape), 0, 255).astype(np.uint8)


def depth_scene(size: int = 128) -> Pixels:
    """A ball before a slope."""
    y, x = np.mgrid[:size, :size].astype(float)
    depth = 40 + 60 * y / size
    ball = np.hypot(x - size * 0.4, y - size * 0.55) < size * 0.3
    depth[ball] = 220 - np.hypot(x - size * 0.4, y - size * 0.55)[ball]
    return np.repeat(depth.astype(np.uint8)[:, :, None], 3, axis=2)


def normal_scene(size: int = 128) -> Pixels:
    """A hemisphere as normals."""
    y, x = np.mgrid[-1.2 : 1.2 : size * 1j, -1.2 : 1.2 : size * 1j]
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, None))
    normal = np.stack([x, y, z], axis=2)
    normal[x * x + y * y >= 1] = (0, 0, 1)
    return np.rint((normal + 1) * 127.5).astype(np.uint8)


def class_scene(seed: int = 7, size: int = 8) -> NDArray[np.int64]:
    """Blocks of four classes, (64, 64)."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 4, (8, 8)), np.ones((size, size), int))


def joints(person: NDArray[np.float64], seen: float = 1.0) -> list[float]:
    """OpenPose's numbers of (18, 2) points in pixels."""
    return [float(value) for x, y in person for value in (x, y, seen)]


def pose(*people: NDArray[np.float64], size: tuple[int, int] = (400, 300)) -> dict[str, object]:
    """OpenPose's JSON object."""
    return {
        "people": [{"pose_keypoints_2d": joints(person)} for person in people],
        "animals": [],
        "canvas_width": size[0],
        "canvas_height": size[1],
    }


STANDING = np.array([
    (50, 20), (50, 40), (35, 40), (30, 65), (28, 90), (65, 40), (70, 65), (72, 90), (42, 95), (41, 130), (40, 165),
    (58, 95), (59, 130), (60, 165), (47, 17), (53, 17), (43, 20), (57, 20),
], float)  # fmt: skip
"""A person of OpenPose's 18 joints, in pixels."""
