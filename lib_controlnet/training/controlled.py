"""The locked U-Net together with the control that steers it, as one module.

The U-Net is truly locked: its weights ask for no gradient, so that what runs before the control acts keeps nothing for
a backward pass. A step of a ControlNet then costs about as much as one of fine-tuning the U-Net itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from ..nets.unet import UNetModel
from .kinds import Control


class ControlledUNet(nn.Module):
    """`forward` is one prediction under control; the parameters that ask for a gradient are those to be trained.

    One module, because gradients of several processes are joined where a module's forward is called.
    `train_decoder`: the U-Net's decoder learns too (cldm's `sd_locked` False); its encoder stays locked always.
    """

    def __init__(self, unet: UNetModel, control: Control, *, train_decoder: bool = False) -> None:
        super().__init__()
        self.unet = unet.eval().requires_grad_(False)
        self.control = control.train()
        control.learn()
        if train_decoder:
            self.unet.output_blocks.requires_grad_(True)
            self.unet.out.requires_grad_(True)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, hints: Tensor, y: Tensor | None = None) -> Tensor:
        """The prediction (B, 4, h, w) float32 for noisy latents x (B, 4, h, w), timesteps (B,), context (B, N, D),
        hints (B, 3, 8h, 8w) in 0..1 (or latents, for kinds that read such) and, for SDXL, y (B, adm)."""
        features = self.control.encode(hints)
        return self.control.predict(self.unet, x, timesteps, context, features, y).float()

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """Weights of the U-Net that are trained."""
        of_control = {id(weight) for weight in self.control.trained()}
        return (w for w in self.unet.parameters() if w.requires_grad and id(w) not in of_control)
