"""The masked part of a picture, filled at the size the network was trained at."""

from __future__ import annotations

import re

import cv2
import numpy as np
import torch

from ...images import Array, Pixels, resize_and_pad
from ...networks import fill, read_weights, ready, to_pixels, to_tensor
from ...spec import AnnotatorError, Runtime, WeightFile
from ...weights import find
from ..inpaint.detector import inpaint
from .net import Generator

SHORT_SIDE = 256
_FIRST = "model.1.ffc.convl2l.weight"
_BLOCK = re.compile(r"model\.(\d+)\.conv1\.")


class Lama:
    """The picture with its masked part filled, and the mask."""

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
        """(h, w, 4) at the picture's own size: what lies outside the mask is the picture's, to the last bit."""
        both = inpaint(image, resolution=resolution, mask=mask)
        colours, cover = both[:, :, :3], both[:, :, 3]
        filled = cv2.resize(self._filled(colours, cover), (both.shape[1], both.shape[0]))
        alpha = cover[:, :, None].astype(np.float32) / 255.0
        mixed = filled.astype(np.float32) * alpha + colours.astype(np.float32) * (1 - alpha)
        return np.dstack([mixed.clip(0, 255).astype(np.uint8), cover])

    def _filled(self, image: Pixels, mask: Pixels) -> Pixels:
        """(H, W, 3), (H, W) to the same picture with a short side of 256."""
        network = self._runtime.network("lama", self._load)
        padded, cut = resize_and_pad(image, SHORT_SIDE)
        cover, _ = resize_and_pad(mask, SHORT_SIDE)
        with torch.no_grad():
            colours = to_tensor(padded, self._runtime) / 255.0
            hole = (to_tensor(cover[:, :, :1], self._runtime) / 255.0 > 0.5).float()
            kept = colours * (1 - hole)
            drawn = network(torch.cat([kept, hole], dim=1))
            return cut(to_pixels((drawn * hole + kept)[0] * 255.0))

    def _load(self) -> Generator:
        path = find(self._weights, self._runtime)
        weights = read_weights(path)
        first = weights.get(_FIRST)
        if first is None:
            raise AnnotatorError(
                f"{path.name} is not LaMa's generator", found=f"no {_FIRST}", remedy="get the right file"
            )
        blocks = {match[1] for name in weights if (match := _BLOCK.match(name))}
        return ready(fill(Generator(first.shape[0], len(blocks)), weights, path), self._runtime)
