"""Controls whose outputs are added to the U-Net's skips and its middle block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...nets.unet import UNetModel, join
from .base import Control


class ResidualControl(Control):
    """`net` is a ControlNet or acts as one. `only_mid_control`: the skips get nothing, and their zero convolutions do
    not learn."""

    def __init__(self, net: nn.Module, only_mid_control: bool = False) -> None:
        super().__init__(net)
        self.only_mid_control = only_mid_control

    def learn(self) -> None:
        super().learn()
        if self.only_mid_control:
            self.net.zero_convs.requires_grad_(False)

    def encode(self, hints: Tensor) -> Tensor:
        return self.net.encode_hint(hints)

    def predict(
        self, unet: UNetModel, x: Tensor, timesteps: Tensor, context: Tensor, features: Tensor, y: Tensor | None = None,
        weight: float = 1.0,
    ) -> Tensor:  # fmt: skip
        residuals: list[Tensor | None] = [*self.net(x, features, timesteps, context, y)]
        if self.only_mid_control:
            residuals[:-1] = [None] * (len(residuals) - 1)
        if weight != 1.0:
            residuals = [part if part is None else weight * part for part in residuals]
        return controlled_forward(unet, x, timesteps, context, residuals, y)

    def use_checkpointing(self) -> None:
        self.net.use_checkpointing()


def controlled_forward(
    unet: UNetModel,
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    residuals: Sequence[Tensor | None],
    y: Tensor | None = None,
) -> Tensor:
    """The U-Net with `residuals` (one per input block, the middle's last; None adds nothing) added to its skips and its
    middle, as `ControlledUnetModel` of lllyasviel/ControlNet: each skip gets its residual when the decoder takes it.

    The encoder runs without a graph: nothing that enters it asks for one. x (B, 4, h, w), timesteps (B,), context
    (B, N, D).
    """
    x, context = x.to(unet.dtype), context.to(unet.dtype)
    with torch.no_grad():
        embedding = unet.embed(timesteps, y)
        h, skips = x, list[Tensor]()
        for block in unet.input_blocks:
            h = block(h, embedding, context)
            skips.append(h)
        h = unet.middle_block(h, embedding, context)
    remaining = list(residuals)
    h = _add(h, remaining.pop())
    for block in unet.output_blocks:
        h = block(join(h, _add(skips.pop(), remaining.pop())), embedding, context)
    return unet.out(h)


def _add(h: Tensor, residual: Tensor | None) -> Tensor:
    return h if residual is None else h + residual.to(h.dtype)
