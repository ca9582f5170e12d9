"""Line segments from the centres and displacements that M-LSD finds."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...libraries import controlnet_aux
from ...networks import load_network, to_tensor
from ...spec import Runtime, WeightFile

MOST_LINES = 200
WHITE = (255,)


class Mlsd:
    """params: the least score of a segment (0..1) and its least length, in pixels of the half-size map."""

    def __init__(self, runtime: Runtime, weights: WeightFile) -> None:
        self._runtime = runtime
        self._weights = weights

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (0.1, 0.1),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """White lines on black; all black where there are none."""
        padded, cut = resize_and_pad(image, resolution)
        canvas = np.zeros(padded.shape[:2], np.uint8)
        for x1, y1, x2, y2 in self._lines(padded, *params):
            cv2.line(canvas, (x1, y1), (x2, y2), WHITE, 1)
        return grey_to_rgb(cut(canvas))

    def _lines(self, image: Pixels, least_score: float, least_length: float) -> list[list[int]]:
        """(H, W, 3) to the ends x1, y1, x2, y2 of segments, the surest first."""
        network = self._runtime.network("mlsd", self._load)
        with torch.no_grad():
            pixels = to_tensor(image, self._runtime)
            four = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1) / 127.5 - 1.0
            found = network(four.contiguous(memory_format=torch.channels_last))[0]
        # on the processor: MPS has neither float64 nor, in old releases, a topk of so many
        return segments(found.cpu(), least_score, least_length)

    def _load(self) -> nn.Module:
        network = load_network(self._runtime, self._weights, controlnet_aux("mlsd").MobileV2_MLSD_Large)
        return network.to(memory_format=torch.channels_last)  # a quarter less time on a processor


def segments(found: Tensor, least_score: float, least_length: float) -> list[list[int]]:
    """(9, h, w): a logit of being a centre, the displacements of both ends, and four planes that nobody uses."""
    width = found.shape[2]
    score = torch.sigmoid(found[0])
    crest = F.max_pool2d(score[None], 3, stride=1, padding=1)[0] == score
    scores, places = torch.topk((score * crest).flatten(), MOST_LINES)
    ends = found[1:5].flatten(1)[:, places].T
    lengths = torch.linalg.vector_norm(ends[:, :2] - ends[:, 2:], dim=1)
    kept = (scores > least_score) & (lengths > least_length)
    x, y = places % width, places // width
    lines = 2 * (torch.stack([x, y, x, y], dim=1).double() + ends.double())
    return lines[kept].long().tolist()
