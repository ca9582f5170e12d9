"""BrushNet: a U-Net without text that sees what is kept of a picture, and adds to every layer of the base.

Ju et al., "BrushNet: A Plug-and-Play Image Inpainting Model with Decomposed Dual-Branch Diffusion", 2024
(arXiv:2403.06976).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from .blocks import TimestepEmbedSequential, Upsample
from .config import UNetConfig
from .operations import Operations
from .unet import UNetModel, join


@dataclass(frozen=True, eq=False)
class Additions:
    """What is added to the base: after each input block, after the middle, after each layer of the output blocks.

    Of an output block that enlarges there are two in `decoder`: before it does, and after.
    """

    encoder: tuple[Tensor, ...]
    middle: Tensor
    decoder: tuple[Tensor, ...]


class BrushNet(UNetModel):
    """Keys as LDM's U-Net without `out`, and `zero_convs`, `middle_block_out` and `up_zero_convs`."""

    def __init__(self, config: UNetConfig, operations: Operations | None = None) -> None:
        super().__init__(config, operations)
        del self.out
        ops = self.operations

        def connection(channels: int) -> TimestepEmbedSequential:
            return TimestepEmbedSequential(ops.zeroed(ops.conv(channels, channels, 1)))

        self.zero_convs = nn.ModuleList(connection(channels) for channels in config.input_channels)
        self.middle_block_out = connection(config.middle_channels)
        self.up_zero_convs = nn.ModuleList(connection(channels) for channels in decoder_channels(config))

    def additions(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, y: Tensor | None = None
    ) -> Additions:
        """x (B, 9, h, w): what is drawn, the latent of what is kept, and where that is, 1 there."""
        emb = self.embed(timesteps, y)
        h = x.to(self.dtype)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            h = block(h, emb, context)
            skips.append(h)
        encoder = tuple(conv(skip, emb) for conv, skip in zip(self.zero_convs, skips, strict=True))
        h = self.middle_block(h, emb, context)
        middle = self.middle_block_out(h, emb)
        decoder: list[Tensor] = []
        for block in self.output_blocks:
            h = join(h, skips.pop())
            for layers in _parts(cast("TimestepEmbedSequential", block)):
                h = layers(h, emb, context)
                decoder.append(self.up_zero_convs[len(decoder)](h, emb))
        return Additions(encoder, middle, tuple(decoder))


def decoder_channels(config: UNetConfig) -> list[int]:
    """Of each addition to the decoder."""
    found: list[int] = []
    for level in reversed(range(len(config.channel_mult))):
        count = config.num_res_blocks + 1 + (1 if level else 0)
        found += [config.channel_mult[level] * config.model_channels] * count
    return found


def _parts(block: TimestepEmbedSequential) -> list[TimestepEmbedSequential]:
    """What enlarges apart from the layers before it."""
    layers = list(block)
    if not isinstance(layers[-1], Upsample):
        return [block]
    return [TimestepEmbedSequential(*layers[:-1]), TimestepEmbedSequential(layers[-1])]
