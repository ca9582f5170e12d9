"""DensePose's network, which is a TorchScript file, and its drawing."""

from __future__ import annotations

import importlib
import re
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..images import Array, Pixels, resize_and_pad
from ..spec import AnnotatorError, Runtime, WeightFile
from ..weights import find

PARTS = 24
# Every zero of a channel becomes this where the scale is viridis: so is the background of the maps models learned from.
_VIRIDIS_ZERO = (68, 1, 84)
# TorchScript is no Python: its interpreter knows tensors' operators alone. These two of them reach files.
_REACHES_FILES = re.compile(rb"\b(from_file|save)\b")


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
        network = self._runtime.network("densepose", self._load)
        with torch.no_grad():
            shown = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1))).to(self._runtime.device)
            # boxes (n, 4), coarse (n, 2, h, w) and fine (n, 25, h, w) parts; places within parts are not drawn
            boxes, coarse, fine, *_ = network(shown)
        canvas = np.zeros(padded.shape[:2], np.uint8)
        for number, box in enumerate(boxes):
            paste(canvas, box, coarse[number], fine[number])
        return cut(self._colours[canvas])

    def _load(self) -> Any:
        path = find(self._weights, self._runtime)
        try:
            importlib.import_module("torchvision")  # registers the operators that the file calls
        except (ImportError, RuntimeError) as error:
            raise AnnotatorError(
                "torchvision cannot be imported, whose operators DensePose's network calls",
                found=f"{type(error).__name__}: {error}",
                remedy="install the release of torchvision that belongs to this torch",
            ) from error
        _check(path)
        try:
            return torch.jit.load(str(path), map_location=self._runtime.device).eval()
        except Exception as error:  # the reader's errors have no class of their own
            raise _damaged(path, error) from error


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


def _check(path: Path) -> None:
    """Raises `AnnotatorError` for a file that is no TorchScript and for one whose code opens files."""
    try:
        with zipfile.ZipFile(path) as archive:
            code = [archive.read(name) for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
    except (OSError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    if any(_REACHES_FILES.search(text) for text in code):
        raise AnnotatorError(
            f"the code in {path.name} reads or writes files, which DensePose does not need",
            remedy=f"delete {path}: it is not what it says",
        )


def _damaged(path: Path, error: Exception) -> AnnotatorError:
    return AnnotatorError(
        f"{path.name} cannot be read: it is damaged or truncated",
        found=" ".join(f"{type(error).__name__}: {error}".split())[:200],
        remedy=f"delete {path} and get it again",
    )
