"""The steps of DPT's decoder (Ranftl et al., 2021, arXiv:2103.13413), which networks for depth share, by its names."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """RefineNet's step (Lin et al., 2017) from a coarser map to the next."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        self.resConfUnit1 = _Residual(channels)  # the coarsest step has one too, and no use for it
        self.resConfUnit2 = _Residual(channels)

    def forward(self, own: Tensor, coarser: Tensor | None, size: tuple[int, int]) -> Tensor:
        """own (B, C, h, w) and what the coarser step gave, of that size, to (B, C, *size)."""
        fused = own if coarser is None else coarser + self.resConfUnit1(own)
        return self.out_conv(larger(self.resConfUnit2(fused), size))


def larger(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) to (B, C, *size), corner on corner."""
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
