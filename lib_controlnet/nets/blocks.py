"""Residual blocks, resampling and the time embedding of the LDM U-Net."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from .attention import SpatialTransformer
from .operations import Operations


def timestep_embedding(timesteps: Tensor, channels: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoids (B, channels) float32 of `timesteps` (B,), cosines first; fractions of a step are kept.

    Equal to LDM's, and to diffusers' with flip_sin_to_cos and no shift.
    """
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(max_period) * exponents / half)
    angles = timesteps.float()[:, None] * frequencies[None]
    embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
    return F.pad(embedding, (0, channels % 2))


def embedding_mlp(inputs: int, outputs: int, ops: Operations) -> nn.Sequential:
    """Linear, SiLU, Linear: `time_embed` and the inner part of `label_emb`."""
    return nn.Sequential(ops.linear(inputs, outputs), nn.SiLU(), ops.linear(outputs, outputs))


class ResBlock(nn.Module):
    """h (B, inputs, h, w), emb (B, E) -> (B, outputs, h, w). groups: of both norms, or of each."""

    def __init__(
        self,
        inputs: int,
        embedding: int,
        outputs: int,
        groups: int | tuple[int, int],
        ops: Operations,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        first, second = groups if isinstance(groups, tuple) else (groups, groups)
        self.in_layers = nn.Sequential(ops.group_norm(first, inputs, eps), nn.SiLU(), ops.conv(inputs, outputs, 3))
        self.emb_layers = nn.Sequential(nn.SiLU(), ops.linear(embedding, outputs))
        # Index 2 is LDM's dropout, which is 0 in every released model; the convolution keeps index 3.
        self.out_layers = nn.Sequential(
            ops.group_norm(second, outputs, eps), nn.SiLU(), nn.Identity(), ops.zeroed(ops.conv(outputs, outputs, 3))
        )
        self.skip_connection = nn.Identity() if inputs == outputs else ops.conv(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Downsample(nn.Module):
    """(B, C, h, w) -> (B, outputs, ceil(h / 2), ceil(w / 2)). outputs: C where not told."""

    def __init__(self, channels: int, ops: Operations, outputs: int | None = None) -> None:
        super().__init__()
        self.op = ops.conv(channels, channels if outputs is None else outputs, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """(B, C, h, w) -> (B, C, 2h, 2w)."""

    def __init__(self, channels: int, ops: Operations) -> None:
        super().__init__()
        self.conv = ops.conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class TimestepEmbedSequential(nn.Sequential):
    """One input, middle or output block: each layer gets of `(h, emb, context)` what it takes.

    `checkpointing` trades time for memory in training: activations are computed again in the backward pass.
    """

    checkpointing: bool = False

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.checkpointing and torch.is_grad_enabled():
            return cast("Tensor", checkpoint(self.run, x, emb, context, use_reentrant=False))
        return self.run(x, emb, context)

    def run(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:
        """`forward`, whatever is kept for a backward pass."""
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x
