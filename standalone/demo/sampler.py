"""A DDIM sampler of its own, so that the demo model's figures depend on no host: see evaluate.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training.noise import NoiseSchedule
from lib_controlnet.training.trainer import controlled_forward

from .networks import decoded
from .shapes import Image


@dataclass(frozen=True, eq=False)
class Guide:
    """A control while sampling: `hints` (n, 3, h, w) in 0..1, its weight, and the share of the steps in which it
    acts."""

    control: ControlNet
    hints: Tensor
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def acts(self, share: float) -> bool:
        return self.weight != 0 and self.start <= share <= self.end


@torch.no_grad()
def sample(
    unet: UNetModel,
    context: Tensor,
    empty: Tensor,
    *,
    seed: int = 0,
    steps: int = 20,
    cfg: float = 4.0,
    guide: Guide | None = None,
) -> Tensor:
    """Latents (n, 4, 16, 16) for context (n, 77, D) and the empty prompt's context (1, 77, D).

    DDIM (Song et al. 2021, eta 0) with the timesteps 951, 901 ... 1 of Stable Diffusion's samplers. The control acts on
    both halves of the guidance.
    """
    alphas = NoiseSchedule.scaled_linear().alphas_cumprod
    count = len(context)
    x = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)])
    both = torch.cat([empty.expand(count, -1, -1), context])
    features = None if guide is None else guide.control.encode_hint(torch.cat([guide.hints, guide.hints]))
    times = [*(np.arange(steps) * (1000 // steps) + 1)[::-1].tolist(), 0]
    for index, time in enumerate(times[:-1]):
        doubled, timesteps = torch.cat([x, x]), torch.full((2 * count,), time)
        if guide is None or features is None or not guide.acts(index / steps):
            answer = unet(doubled, timesteps, both)
        else:
            residuals = guide.control(doubled, features, timesteps, both)
            answer = controlled_forward(unet, doubled, timesteps, both, [guide.weight * part for part in residuals])
        without, with_prompt = answer.chunk(2)
        epsilon = without + cfg * (with_prompt - without)
        now, then = alphas[time], alphas[times[index + 1]]
        clean = (x - (1 - now).sqrt() * epsilon) / now.sqrt()
        x = then.sqrt() * clean + (1 - then).sqrt() * epsilon
    return x


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor, scale: float) -> list[Image]:
    """RGB uint8 pictures of scaled latents (n, 4, h, w)."""
    made = torch.cat([decoded(vae, one / scale) for one in latents.split(8)])
    return list(((made.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
