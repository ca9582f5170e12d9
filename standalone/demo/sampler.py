"""Latents to pictures, for the demo model's figures: see evaluate.py."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from .networks import decoded
from .shapes import Image


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor, scale: float) -> list[Image]:
    """RGB uint8 pictures of scaled latents (n, 4, h, w)."""
    made = torch.cat([decoded(vae, one / scale) for one in latents.split(8)])
    return list(((made.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
