"""CtrLoRA: a ControlNet without a hint encoder, which reads the control image as a latent in place of what is drawn.

Xu et al., "CtrLoRA: An Extensible and Efficient Framework for Controllable Image Generation", 2024 (arXiv:2410.09400).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .config import ControlNetConfig
from .controlnet import ControlNet
from .operations import Operations


class LatentControlNet(ControlNet):
    """Keys as `ControlNet`, without `input_hint_block`."""

    def __init__(self, config: ControlNetConfig, operations: Operations | None = None) -> None:
        super().__init__(config, operations)
        del self.input_hint_block

    def encode_hint(self, hint: Tensor) -> Tensor:
        """Features (n, model_channels, h, w) of a control image's latent (n, 4, h, w), once a pass."""
        latent = hint.to(self.dtype)
        return self.input_blocks[0](latent, latent)  # a convolution, which asks for no embedding

    def entered(self, x: Tensor, hint_features: Tensor, emb: Tensor) -> Tensor:
        """Of `x` (B, 4, h, w) the number of rows counts."""
        del emb
        return torch.cat([hint_features] * (x.shape[0] // hint_features.shape[0]))  # which keeps the layout
