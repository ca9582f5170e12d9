"""ControlNet: a trainable copy of the U-Net's encoder that reads a control image ("hint").

Zhang et al., "Adding Conditional Control to Text-to-Image Diffusion Models", 2023 (arXiv:2302.05543).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .attention import repeated
from .blocks import TimestepEmbedSequential
from .config import ControlNetConfig
from .encoder import Encoder
from .operations import Operations
from .unet import UNetModel


class ControlNet(Encoder):
    """Keys as cldm's class of this name: those of the encoder, `input_hint_block`, `zero_convs`, `middle_block_out`."""

    def __init__(self, config: ControlNetConfig, operations: Operations | None = None) -> None:
        super().__init__(config.unet, operations or Operations())
        self.control_config = config
        ops = self.operations
        self.input_hint_block = TimestepEmbedSequential(
            *hint_layers(config.hint_channels, config.hint_widths, config.unet.model_channels, ops)
        )
        self.zero_convs = nn.ModuleList(
            TimestepEmbedSequential(ops.zeroed(ops.conv(channels, channels, 1)))
            for channels in config.unet.input_channels
        )
        middle = config.unet.middle_channels
        self.middle_block_out = TimestepEmbedSequential(ops.zeroed(ops.conv(middle, middle, 1)))

    def encode_hint(self, hint: Tensor) -> Tensor:
        """Features (n, model_channels, H/8, W/8) of `hint` (n, hint_channels, H, W) in 0..1 (-1: to be inpainted).

        They depend on nothing else: once per pass is enough.
        """
        h = hint.to(self.dtype)
        for layer in self.input_hint_block:
            h = layer(h)
        return h

    def entered(self, x: Tensor, hint_features: Tensor, emb: Tensor) -> Tensor:
        """What the first block, which knows neither time nor prompt, makes of `x` (B, 4, h, w), with the hint's."""
        return self.input_blocks[0](x.to(self.dtype), emb) + hint_features

    def forward(
        self,
        x: Tensor,
        hint_features: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        further: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Residuals for each input block's skip and, last, for the middle block's output; not scaled.

        x (B, 4, h, w), hint_features (B or 1, model_channels, h, w) from `encode_hint`, timesteps (B,),
        context (B, N, context_dim), y (B, adm_channels) for SDXL. Without y there may be k * B contexts: the prompts
        in which the same B rows are read, all of the first prompt's first. The residuals then have k * B rows.
        further (1, 4 * model_channels): added to the embedding of the timesteps.
        """
        emb = self.embed(timesteps, y)
        if further is not None:
            emb = emb + further
        context = None if context is None else context.to(self.dtype)
        h = self.entered(x, hint_features, emb)
        residuals = [self.zero_convs[0](h, emb)]
        for index in range(1, len(self.input_blocks)):
            h = self.input_blocks[index](h, emb, context)
            emb = repeated(emb, h)
            residuals.append(self.zero_convs[index](h, emb))
        residuals.append(self.middle_block_out(self.middle_block(h, emb, context), emb))
        return tuple(repeated(residual, context) for residual in residuals)


def trainable_copy(
    unet: UNetModel, hint_channels: int = 3, hint_widths: tuple[int, ...] = (16, 32, 96, 256)
) -> ControlNet:
    """A ControlNet to be trained: the U-Net's encoder and middle, zero convs of 0, hint encoder freshly initialised.

    It computes in the U-Net's dtype and on its device, and shares no memory with it.
    """
    first = next(unet.parameters())
    with torch.device(first.device):
        copy = ControlNet(ControlNetConfig(unet.config, hint_channels, hint_widths), Operations())
    own = set(copy.state_dict())
    shared = {key: value for key, value in unet.state_dict().items() if key in own}
    copy.load_state_dict(shared, strict=False)
    return copy if first.dtype == torch.get_default_dtype() else copy.to(first.dtype)


def hint_layers(channels: int, widths: Sequence[int], outputs: int, ops: Operations) -> list[nn.Module]:
    """3x3 convolutions with SiLU between: one keeps, the next halves the size; the last starts at 0."""
    layers: list[nn.Module] = [ops.conv(channels, widths[0], 3), nn.SiLU()]
    for width, wider in pairwise(widths):
        layers += [ops.conv(width, width, 3), nn.SiLU(), ops.conv(width, wider, 3, stride=2), nn.SiLU()]
    return [*layers, ops.zeroed(ops.conv(widths[-1], outputs, 3))]
