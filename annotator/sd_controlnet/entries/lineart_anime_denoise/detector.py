"""Lines of manga, inverted."""

from __future__ import annotations

import cv2
import torch
from torch import nn

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...networks import load_network, to_pixels
from ...spec import Runtime, WeightFile
from .net import MangaLineNet


class MangaLine:
    """White lines on black; the network itself draws black on white."""

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
        """The map, (h, w, 3)."""
        padded, cut = resize_and_pad(image, resolution)
        network = self._runtime.network("lineart_anime_denoise", self._load)
        grey = torch.from_numpy(cv2.cvtColor(padded, cv2.COLOR_RGB2GRAY)).to(self._runtime.device, torch.float32)
        with torch.no_grad():
            lines = 255.0 - network(grey[None, None])[0, 0]
        return grey_to_rgb(cut(to_pixels(lines)))

    def _load(self) -> nn.Module:
        return load_network(self._runtime, self._weights, MangaLineNet)
