"""DensePose's network, which is a TorchScript file, and its drawing."""

from __future__ import annotations

import importlib
import io
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...images import Array, Pixels, resize_and_pad
from ...spec import AnnotatorError, Runtime, WeightFile
from ...trust import run_trusted

PARTS = 24
# Every zero of a channel becomes this where the scale is viridis: so is the background of the maps models learned from.
_VIRIDIS_ZERO = (68, 1, 84)


class DensePose:
    """`viridis`: the scale of colours; else parula, on black."""

    def __init__(self, runtime: Runtime, weights: WeightFile, viridis: bool) -> None:
        self._runtime = runtime
        self._weights = weights
        self._colours = colours(viridis)

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3)."""
        padded, cut = resize_and_pad(image, resolution)
        self._runtime.stage(0.0)
        network = run_trusted(self._runtime, "densepose", self._weights, self._load)
        with torch.no_grad():
            shown = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1))).to(self._runtime.device)
            # boxes (n, 4), coarse (n, 2, h, w) and fine (n, 25, h, w) parts; places within parts are not drawn
            boxes, coarse, fine, *_ = network(shown)
        canvas = np.zeros(padded.shape[:2], np.uint8)
        for number, box in enumerate(boxes):
            paste(canvas, box, coarse[number], fine[number])
        return cut(self._colours[canvas])

    def _load(self, content: io.BytesIO) -> Any:
        try:
            importlib.import_module("torchvision")  # registers the operators that the file calls
        except (ImportError, RuntimeError) as error:
            raise AnnotatorError(
                "torchvision cannot be imported, whose operators DensePose's network calls",
                found=f"{type(error).__name__}: {error}",
                remedy="install the release of torchvision that belongs to this torch",
            ) from error
        return torch.jit.load(content, map_location=self._runtime.device).eval()


def colours(viridis: bool) -> Pixels:
    """(25, 3) RGB: of the background and of the 24 parts."""
    steps = (np.arange(PARTS + 1) * 255.0 / PARTS).astype(np.uint8)
    scale = cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS if viridis else cv2.COLORMAP_PARULA)[:, 0, ::-1].copy()
    scale[0] = 0
    if viridis:
        scale = np.where(scale == 0, _VIRIDIS_ZERO, scale)
    return scale.astype(np.uint8)


def paste(canvas: Pixels, box: Tensor, coarse: Tensor, fine: Tensor) -> None:
    """Write a person's parts (1..24) into (H, W), where there are any. `box`: left, top, right, bottom in pixels."""
    left, top, width, height = torch.stack([box[0], box[1], box[2] - box[0], box[3] - box[1]]).long().tolist()
    if width <= 0 or height <= 0:
        return
    size = (height, width)
    person = F.interpolate(coarse[None], size, mode="bilinear").argmax(dim=1)[0] > 0
    parts = F.interpolate(fine[None], size, mode="bilinear").argmax(dim=1)[0] * person
    target = canvas[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    first_row, first_column = max(-top, 0), max(-left, 0)
    visible = parts.cpu().numpy()[
        first_row : first_row + target.shape[0], first_column : first_column + target.shape[1]
    ]
    target[visible > 0] = visible[visible > 0]
