"""The host's VAE on a unit's picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...core.errors import HostError


@torch.no_grad()
def encode(model: Any, seed: int, pixels: Tensor) -> Tensor:
    """(n, 3, H, W) in 0..1 -> latents (n, 4, H/8, W/8) as the host's U-Net takes them.

    LDM draws from the posterior: with `seed`, and without a trace in the generator from which the host draws.
    Raises HostError where the VAE gives NaN.
    """
    from modules import devices

    with torch.random.fork_rng(devices=[]), devices.autocast():
        torch.default_generator.manual_seed(seed)  # the processor's only, which is the one that is put back
        pictures = (pixels * 2.0 - 1.0).to(devices.device, devices.dtype_vae)
        latents = torch.cat(
            [model.get_first_stage_encoding(model.encode_first_stage(part)) for part in pictures.split(1)]
        )
    if bool(torch.isnan(latents).any()):
        raise HostError(
            "the VAE cannot encode the unit's picture",
            found="NaN",
            remedy="start the WebUI with --no-half-vae",
        )
    return latents


@torch.no_grad()
def through_vae(model: Any, seed: int, pixels: Tensor) -> Tensor:
    """(n, 3, H, W) in 0..1 -> what is left of them when they are encoded and decoded, the same, float32."""
    from modules import devices

    latents = encode(model, seed, pixels)
    with devices.autocast():
        parts = [model.decode_first_stage(part.to(devices.device, devices.dtype_vae)) for part in latents.split(1)]
    return (torch.cat(parts).float() / 2 + 0.5).clamp(0, 1)
