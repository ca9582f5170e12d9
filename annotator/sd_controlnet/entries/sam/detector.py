"""Every segment that Segment Anything finds from a grid of points, painted: large ones first, small ones over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...images import Array, Pixels, resize_short_side
from ...networks import to_tensor
from ...renaming import load_sized
from ...spec import Runtime, WeightFile
from .network import Network, build

# The settings of the publication's automatic mask generator, which the peers leave as they are.
POINTS_PER_SIDE = 32
_POINTS_AT_ONCE = 64
_MASKS_AT_ONCE = 16
_LEAST_QUALITY = 0.88
_LEAST_STABILITY = 0.95
_STABILITY_OFFSET = 1.0
_GREATEST_OVERLAP = 0.7
_COLOUR_SEED = 0


@dataclass(frozen=True)
class Segment:
    """box: left, top, right, bottom of its pixels, the last two included. mask: (h, w) bool inside the box."""

    quality: float
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]


class SegmentAnything:
    """The colours mean nothing and are drawn at random, by the peers anew for every picture and by us from one seed:
    the same picture has the same map."""

    def __init__(self, runtime: Runtime, weights: WeightFile) -> None:
        self._runtime = runtime
        self._weights = weights

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3); black where no segment is."""
        resized = resize_short_side(image, resolution)
        with torch.no_grad():
            found = list(segments(self.network(), resized, self._runtime))
        return painted(without_doubles(found), resized.shape[:2])

    def network(self) -> Network:
        """Loaded now, unless it is."""
        return self._runtime.network(self._weights.name, lambda: load_sized(self._runtime, self._weights, build))


def segments(network: Network, image: Pixels, runtime: Runtime) -> Iterator[Segment]:
    """Those of (H, W, 3) that the network itself thinks good, and whose borders are sharp."""
    height, width = image.shape[:2]
    scale = network.side / max(height, width)
    size = (int(height * scale + 0.5), int(width * scale + 0.5))
    seen = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    embedding = network.embed(to_tensor(seen, runtime))
    points = torch.from_numpy(_grid() * size[::-1]).to(runtime.device, torch.float32)
    for start in range(0, len(points), _POINTS_AT_ONCE):
        runtime.stage(start / len(points))
        logits, quality = network.masks(embedding, points[start : start + _POINTS_AT_ONCE])
        good = quality > _LEAST_QUALITY
        # the rest is done for these alone: a point's three masks at full size would be megabytes each
        for some, values in zip(logits[good].split(_MASKS_AT_ONCE), quality[good].split(_MASKS_AT_ONCE), strict=True):
            whole = F.interpolate(some[:, None], (network.side, network.side), mode="bilinear")
            whole = F.interpolate(whole[:, :, : size[0], : size[1]], (height, width), mode="bilinear")[:, 0]
            sharp = _stability(whole) >= _LEAST_STABILITY
            for plane, value in zip((whole[sharp] > 0).cpu().numpy(), values[sharp].tolist(), strict=True):
                yield _segment(plane, value)


def without_doubles(found: list[Segment]) -> list[Segment]:
    """The best first, and none whose box overlaps that of a better one by more than 0.7 of both together."""
    if not found:
        return []
    boxes = np.array([segment.box for segment in found], np.float32)
    left, top, right, bottom = boxes.T
    areas = (right - left) * (bottom - top)
    order = np.argsort([-segment.quality for segment in found], kind="stable")
    kept: list[Segment] = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(found[first])
        across = np.minimum(right[first], right[rest]) - np.maximum(left[first], left[rest])
        down = np.minimum(bottom[first], bottom[rest]) - np.maximum(top[first], top[rest])
        common = across.clip(0) * down.clip(0)
        order = rest[common <= np.float32(_GREATEST_OVERLAP) * (areas[first] + areas[rest] - common)]
    return kept


def painted(found: list[Segment], size: tuple[int, ...]) -> Pixels:
    """(H, W, 3): a random colour for each, the largest at the bottom."""
    random = np.random.RandomState(_COLOUR_SEED)
    canvas = np.zeros((*size, 3), np.uint8)
    for segment in sorted(found, key=lambda one: int(one.mask.sum()), reverse=True):
        left, top, right, bottom = segment.box
        colour = [random.randint(255, dtype=np.uint8) for _channel in range(3)]
        canvas[top : bottom + 1, left : right + 1][segment.mask] = colour
    return canvas


def _grid() -> NDArray[np.float64]:
    """(1024, 2) in 0..1: x and y of the middles of 32x32 cells, row by row."""
    middles = (np.arange(POINTS_PER_SIDE) + 0.5) / POINTS_PER_SIDE
    return np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)


def _stability(logits: Tensor) -> Tensor:
    """(N, H, W) to (N,): how much of a mask is left when its threshold is raised; nan for an empty one."""
    inner = (logits > _STABILITY_OFFSET).sum(dim=(1, 2))
    outer = (logits > -_STABILITY_OFFSET).sum(dim=(1, 2))
    return inner / outer


def _segment(plane: NDArray[np.bool_], quality: float) -> Segment:
    """`plane` (H, W) has a true pixel: an empty one is not stable."""
    left, top, width, height = cv2.boundingRect(plane.view(np.uint8))
    inside = plane[top : top + height, left : left + width].copy()
    return Segment(quality, (left, top, left + width - 1, top + height - 1), inside)
