"""U-Net of Stable Diffusion 1.x, 2.x and XL, of any width and depth, under LDM's names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import TimestepEmbedSequential, Upsample
from .config import UNetConfig
from .encoder import Encoder
from .operations import Operations


class UNetModel(Encoder):
    """Predicts the noise (or velocity) in `x`. Keys and attributes as LDM's class of this name."""

    def __init__(self, config: UNetConfig, operations: Operations | None = None) -> None:
        super().__init__(config, operations or Operations())
        self.output_blocks = nn.ModuleList(self._output_blocks())
        self.out = nn.Sequential(
            self.operations.group_norm(config.groups, self.model_channels),
            nn.SiLU(),
            self.operations.zeroed(self.operations.conv(self.model_channels, config.out_channels, 3)),
        )

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, y: Tensor | None = None, **kwargs: object
    ) -> Tensor:
        """Noise (B, out_channels, h, w) in the dtype of `x`.

        x (B, in_channels, h, w), timesteps (B,) 0..999 and not necessarily whole, context (B, N, context_dim),
        y (B, adm_channels) for SDXL. Further keywords, which some hosts pass to their own U-Net, have no effect.
        """
        emb = self.embed(timesteps, y)
        context = None if context is None else context.to(self.dtype)
        h = x.to(self.dtype)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            h = block(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)
        for block in self.output_blocks:
            h = block(join(h, skips.pop()), emb, context)
        return self.out(h).to(x.dtype)

    def _output_blocks(self) -> list[TimestepEmbedSequential]:
        config = self.config
        skips = list(config.input_channels)
        width = config.middle_channels
        blocks: list[TimestepEmbedSequential] = []
        for level in reversed(range(len(config.channel_mult))):
            depth = config.transformer_depth[level]
            for index in range(config.num_res_blocks + 1):
                outputs = config.channel_mult[level] * self.model_channels
                layers: list[nn.Module] = [self.res_block(width + skips.pop(), outputs)]
                width = outputs
                if depth:
                    layers.append(self.transformer(width, depth))
                if level and index == config.num_res_blocks:
                    layers.append(Upsample(width, self.operations))
                blocks.append(TimestepEmbedSequential(*layers))
        return blocks


def join(h: Tensor, skip: Tensor) -> Tensor:
    """Channels of both; `h` takes the size of `skip` where an odd size was halved and doubled, as A1111 does."""
    if h.shape[-2:] != skip.shape[-2:]:
        h = F.interpolate(h, size=skip.shape[-2:], mode="nearest")
    return torch.cat([h, skip], dim=1)
