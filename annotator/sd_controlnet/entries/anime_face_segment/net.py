"""The U-Net of Anime-Face-Segmentation on MobileNetV2, with the names of its published weights.

Written anew after https://github.com/siyeong0/Anime-Face-Segmentation (MIT) and "MobileNetV2: Inverted Residuals and
Linear Bottlenecks" (Sandler et al., 2018, arXiv:1801.04381) as torchvision (BSD-3-Clause), whose names the file has,
counts its layers. No library that we could use has it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 7
EXPANSION = 6
ENCODER = (
    ((24, 2), (24, 1)),
    ((32, 2), (32, 1), (32, 1)),
    ((64, 2), (64, 1), (64, 1), (64, 1), (96, 1), (96, 1), (96, 1)),
    ((160, 2), (160, 1), (160, 1)),
)
"""Channels and stride of every bottleneck after the first, block by block."""
SKIPS = (96, 32, 24, 16)


def _conv(inside: int, outside: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU6())


class _Bottleneck(nn.Module):
    """Widen, filter each channel, narrow; added to what came in where the shapes agree."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int = EXPANSION) -> None:
        super().__init__()
        inner = inside * expansion
        widen = [_conv(inside, inner, 1, 1)] if expansion > 1 else []
        filtered = _conv(inner, inner, 3, stride, groups=inner)
        self.conv = nn.Sequential(*widen, filtered, nn.Conv2d(inner, outside, 1, bias=False), nn.BatchNorm2d(outside))
        self.adds = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


def _up(inside: int, outside: int, *rest: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.UpsamplingNearest2d(scale_factor=2), nn.Conv2d(inside, outside, 3, padding=1), *rest)


class UNet(nn.Module):
    """(B, 3, H, W) 0..1 to the probabilities (B, 7, H, W) of background, hair, eye, mouth, face, skin, clothes."""

    def __init__(self) -> None:
        super().__init__()
        self.en_block0 = nn.Sequential(_conv(3, 32, 3, 2), _Bottleneck(32, 16, 1, expansion=1))
        width = 16
        for number, layers in enumerate(ENCODER, start=1):
            block = nn.Sequential()
            for outside, stride in layers:
                block.append(_Bottleneck(width, outside, stride))
                width = outside
            self.add_module(f"en_block{number}", block)
        for number, outside in zip((4, 3, 2, 1), SKIPS, strict=True):
            norm = (nn.InstanceNorm2d(outside), nn.LeakyReLU(0.1))
            self.add_module(f"de_block{number}", _up(width, outside, *norm))
            width = outside * 2
        self.de_block0 = _up(width, CLASSES, nn.Softmax2d())

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for number in range(5):
            x = self.get_submodule(f"en_block{number}")(x)
            kept.append(x)
        x = kept.pop()
        for number in (4, 3, 2, 1):
            skip = kept.pop()
            x = self.get_submodule(f"de_block{number}")(x)
            x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=True)
            x = torch.cat((x, skip), 1)
        return self.de_block0(x)
