"""SparseCtrl: a ControlNet that never sees what is drawn, with AnimateDiff's layers over time.

Guo et al., "SparseCtrl: Adding Sparse Controls to Text-to-Video Diffusion Models", 2023 (arXiv:2311.16933).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .attention import FeedForward, attention
from .blocks import TimestepEmbedSequential
from .config import ControlNetConfig, UNetConfig, hint_widths
from .controlnet import ControlNet
from .operations import Operations

_MOTION = ".motion."
_HEADS = 8
"""Of attention over time, in all published files."""
_LATENT = 5
"""Channels that a control "RGB" reads: a latent, and where it is to be followed."""


@dataclass(frozen=True)
class SparseConfig:
    """control: as of a ControlNet; its hint has a mask as its last channel. latent: the hint is one, at its size.

    frames: for how many of them places in time are stored.
    """

    control: ControlNetConfig
    latent: bool
    frames: int

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> SparseConfig:
        """Raises ModelFileError or KeyError where the keys do not describe a SparseCtrl."""
        still = {key: value for key, value in weights.items() if _MOTION not in key}
        unet = UNetConfig.from_weights(still)
        hint = weights["input_hint_block.0.weight"].shape[1]
        frames = next(weights[key].shape[1] for key in weights if key.endswith("pos_embed.pe"))
        control = ControlNetConfig(replace(unet, out_channels=unet.in_channels), hint, hint_widths(still))
        return cls(control, hint == _LATENT and len(control.hint_widths) == 1, frames)


class TimeAttention(nn.Module):
    """Tokens (B, F, C) of a place in F frames, which attend to one another; a frame alone to its own value."""

    def __init__(self, channels: int, ops: Operations) -> None:
        super().__init__()
        self.to_q = ops.linear(channels, channels, bias=False)
        self.to_k = ops.linear(channels, channels, bias=False)
        self.to_v = ops.linear(channels, channels, bias=False)
        self.to_out = nn.Sequential(ops.linear(channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.to_v(tokens)
        if tokens.shape[1] > 1:
            q, k, v = (_heads(part) for part in (self.to_q(tokens), self.to_k(tokens), values))
            values = attention(q, k, v).transpose(1, 2).flatten(2)
        return self.to_out(values)


def _heads(tokens: Tensor) -> Tensor:
    """(B, F, C) -> (B, heads, F, C / heads), a view."""
    return tokens.reshape(*tokens.shape[:2], _HEADS, -1).transpose(1, 2)


class Places(nn.Module):
    """Where in time a frame is: (1, frames, C)."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.pe = nn.Parameter(torch.zeros(1, frames, channels))


class TimeBlock(nn.Module):
    """Tokens (B, F, C) of a place in F frames -> the same. Keys as diffusers'."""

    def __init__(self, channels: int, frames: int, ops: Operations) -> None:
        super().__init__()
        self.operations = ops
        self.norm1 = ops.layer_norm(channels)
        self.attn1 = TimeAttention(channels, ops)
        self.norm3 = ops.layer_norm(channels)
        self.ff = FeedForward(channels, ops)
        self.pos_embed = Places(channels, frames)

    def forward(self, tokens: Tensor) -> Tensor:
        places = self.operations.parameter(self.pos_embed.pe)[:, : tokens.shape[1]]
        tokens = self.attn1(self.norm1(tokens) + places) + tokens
        return self.ff(self.norm3(tokens)) + tokens


class Motion(nn.Module):
    """Features (B, C, h, w) of films, frame after frame, film after film -> the same.

    Normalised frame by frame, as the authors' network; diffusers' takes the frames of a film together.
    """

    frames = 1
    """Of one film, in the call under way."""

    def __init__(self, channels: int, frames: int, groups: int, ops: Operations) -> None:
        super().__init__()
        self.norm = ops.group_norm(groups, channels, eps=1e-6)
        self.proj_in = ops.linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TimeBlock(channels, frames, ops)])
        self.proj_out = ops.linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        tokens = self.proj_in(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))
        tokens = tokens.reshape(rows // self.frames, self.frames, -1, channels).transpose(1, 2).flatten(0, 1)
        for block in self.transformer_blocks:
            tokens = block(tokens)
        tokens = self.proj_out(tokens).reshape(rows // self.frames, -1, self.frames, channels).transpose(1, 2)
        return x + tokens.reshape(rows, height, width, channels).permute(0, 3, 1, 2)


class SparseControlNet(ControlNet):
    """Keys as `ControlNet`, with `input_blocks.N.motion.*` after the other layers of each residual block's."""

    def __init__(self, config: SparseConfig, operations: Operations | None = None) -> None:
        super().__init__(config.control, operations or Operations())
        self.latent = config.latent
        self.places = config.frames
        unet, ops = config.control.unet, self.operations
        if config.latent:
            first = ops.conv(config.control.hint_channels, unet.model_channels, 3)
            self.input_hint_block = TimestepEmbedSequential(ops.zeroed(first))
        self._motions: list[Motion] = []
        widths = unet.input_channels
        for index in range(1, len(widths)):
            if index % (unet.num_res_blocks + 1):
                motion = Motion(widths[index], config.frames, unet.groups, ops)
                self.input_blocks[index].add_module("motion", motion)
                self._motions.append(motion)

    def forward(
        self,
        x: Tensor,
        hint_features: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        further: Tensor | None = None,
        frames: int = 1,
    ) -> tuple[Tensor, ...]:
        """As `ControlNet`'s; of `x` the shape counts. Every `frames` rows are one film."""
        for motion in self._motions:
            motion.frames = frames
        return super().forward(torch.zeros_like(x), hint_features, timesteps, context, y, further)
