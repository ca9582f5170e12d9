"""The U-Net's forward pass for controls that act within its encoder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from ...nets.blocks import TimestepEmbedSequential
from ...nets.unet import UNetModel, join


class Weave:
    """What a control does in one call of the U-Net; here nothing. Blocks are counted through encoder and middle."""

    def begin(self, x: Tensor, emb: Tensor, context: Tensor) -> None:
        """Before the first block."""

    def entered(self, index: int, h: Tensor) -> None:
        """`h` is what block `index` gets."""

    def left(self, index: int, h: Tensor) -> Tensor:
        """What block `index` gives, for the next block and the skip."""
        return h

    def trunk(self, index: int, h: Tensor) -> Tensor:
        """What output block `index` gets from below."""
        return h

    def run(self, name: str, block: TimestepEmbedSequential, h: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """The block of that name."""
        del name
        return block(h, emb, context)


def woven_forward(
    unet: UNetModel, weave: Weave, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None
) -> Tensor:
    """See `Control.predict`."""
    x, context, emb = x.to(unet.dtype), context.to(unet.dtype), unet.embed(timesteps, y)
    weave.begin(x, emb, context)
    h, skips, last = x, list[Tensor](), len(unet.input_blocks)
    for index, block in enumerate(_blocks(unet.input_blocks)):
        weave.entered(index, h)
        h = weave.left(index, weave.run(f"input_blocks.{index}", block, h, emb, context))
        skips.append(h)
    weave.entered(last, h)
    h = weave.left(last, weave.run("middle_block", unet.middle_block, h, emb, context))
    for index, block in enumerate(_blocks(unet.output_blocks)):
        h = weave.run(f"output_blocks.{index}", block, join(weave.trunk(index, h), skips.pop()), emb, context)
    return unet.out(h)


def _blocks(blocks: nn.ModuleList) -> Iterable[TimestepEmbedSequential]:
    return cast("Iterable[TimestepEmbedSequential]", blocks)
