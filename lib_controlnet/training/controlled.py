"""The locked U-Net together with the ControlNet that steers it, as one module.

The U-Net is truly locked: its weights ask for no gradient, and its encoder runs without a graph, since nothing that
enters it asks for one either; the decoder keeps only what the residuals need. A step then costs about as much as one of
fine-tuning the U-Net itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets.controlnet import ControlNet
from ..nets.unet import UNetModel


class ControlledUNet(nn.Module):
    """`forward` is one prediction under control; the parameters that ask for a gradient are those to be trained.

    One module, because gradients of several processes are joined where a module's forward is called.
    `train_decoder`: the U-Net's decoder learns too (cldm's `sd_locked` False); its encoder stays locked always.
    `only_mid_control`: the residuals of the skips are left out, and their zero convolutions are not trained.
    """

    def __init__(
        self, unet: UNetModel, control: ControlNet, *, train_decoder: bool = False, only_mid_control: bool = False
    ) -> None:
        super().__init__()
        self.unet = unet.eval().requires_grad_(False)
        self.control = control.train().requires_grad_(True)
        self.only_mid_control = only_mid_control
        if train_decoder:
            self.unet.output_blocks.requires_grad_(True)
            self.unet.out.requires_grad_(True)
        if only_mid_control:
            self.control.zero_convs.requires_grad_(False)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, hints: Tensor, y: Tensor | None = None) -> Tensor:
        """The prediction (B, 4, h, w) float32 for noisy latents x (B, 4, h, w), timesteps (B,), context (B, N, D),
        hints (B, 3, 8h, 8w) in 0..1 and, for SDXL, y (B, adm)."""
        residuals = self.control(x, self.control.encode_hint(hints), timesteps, context, y)
        if self.only_mid_control:
            residuals = [*[None] * (len(residuals) - 1), residuals[-1]]
        return controlled_forward(self.unet, x, timesteps, context, residuals, y).float()

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """Weights of the U-Net that are trained."""
        return (parameter for parameter in self.unet.parameters() if parameter.requires_grad)

    def control_parameters(self) -> Iterator[nn.Parameter]:
        """Weights of the ControlNet that are trained."""
        return (parameter for parameter in self.control.parameters() if parameter.requires_grad)


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

    The encoder runs without a graph. x (B, 4, h, w), timesteps (B,), context (B, N, D).
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
        skip = _add(skips.pop(), remaining.pop())
        if h.shape[-2:] != skip.shape[-2:]:
            h = F.interpolate(h, size=skip.shape[-2:], mode="nearest")
        h = block(torch.cat([h, skip], dim=1), embedding, context)
    return unet.out(h)


def _add(h: Tensor, residual: Tensor | None) -> Tensor:
    return h if residual is None else h + residual.to(h.dtype)
