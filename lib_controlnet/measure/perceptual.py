"""LPIPS v0.1 with AlexNet (Zhang et al. 2018, arXiv:1801.03924), as richzhang/PerceptualSimilarity computes it.

The features of AlexNet after each of its five layers, brought to length 1 over their channels, are compared: squared
differences are weighed by a head that people's judgements have trained, averaged over the picture and added up. The
layers are here, so that torchvision is not needed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.images import Pixels
from ..core.precision import own_types
from .score import Mask

SMALLEST = 31
"""Pixels of a side, below which nothing is left for AlexNet's later layers."""
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""Of a picture in -1..1: what ImageNet's mean and deviation are there."""
_CHANNELS = (64, 192, 384, 256, 256)
_ENDS = (0, 2, 5, 8, 10, 12)
"""Places among AlexNet's layers, each stage ending with a ReLU."""
_EPS = 1e-10


class Perceptual(nn.Module):
    """The network, under the names of its files: torchvision's `features.0.weight` and lpips' `lin0.model.1.weight`."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(),
            nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(),
            nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        for number, channels in enumerate(_CHANNELS):
            head = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))  # lpips' dropout is off
            self.add_module(f"lin{number}", nn.ModuleDict({"model": head}))

    @torch.no_grad()
    def distance(self, found: Pixels, wanted: Pixels, inside: Mask) -> float:
        """Of two pictures (h, w, 3) uint8 with sides of SMALLEST at least, 0 where they are alike; on the processor.

        inside: (h, w), what is scored, not nothing. What is not is made alike before, so that the layers, which look
        far around, see nothing of it; the mean over a layer's places is weighed by how much of each is inside.
        """
        both = np.stack([np.where(inside[:, :, None], found, wanted), wanted])
        pictures = torch.as_tensor(both).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        share = torch.as_tensor(inside[None, None]).float()
        total = 0.0
        with own_types([pictures.device]):
            for differences in self._differences(pictures):
                height, width = differences.shape[2:]
                weights = functional.adaptive_avg_pool2d(share, (height, width))
                total += float((differences * weights).sum() / weights.sum())
        return total

    def _differences(self, pictures: Tensor) -> list[Tensor]:
        """Of a pair (2, 3, h, w) in -1..1: each layer's weighed difference (1, 1, h', w')."""
        x = (pictures - pictures.new_tensor(_SHIFT).view(1, 3, 1, 1)) / pictures.new_tensor(_SCALE).view(1, 3, 1, 1)
        found: list[Tensor] = []
        for number, (start, end) in enumerate(pairwise(_ENDS)):
            x = self.features[start:end](x)
            length = x.square().sum(dim=1, keepdim=True).sqrt()
            first, second = (x / (length + _EPS)).chunk(2)
            head: Any = self.get_submodule(f"lin{number}.model")
            found.append(head((first - second).square()))
        return found
