"""The forward diffusion of a training step and what the network is asked to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .errors import TrainingError

Prediction = Literal["epsilon", "velocity"]


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """`alphas_cumprod` (steps,) float32: the share of the signal's power left at each timestep."""

    alphas_cumprod: Tensor
    prediction: Prediction = "epsilon"

    @classmethod
    def scaled_linear(
        cls, start: float = 0.00085, end: float = 0.012, steps: int = 1000, prediction: Prediction = "epsilon"
    ) -> NoiseSchedule:
        """Stable Diffusion's schedule: betas whose square roots are evenly spaced."""
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()
        return cls(torch.cumprod(1 - betas, 0).float(), prediction)

    def ending_in_noise(self) -> NoiseSchedule:
        """The same schedule stretched so that nothing is left of the signal at the last timestep (Lin et al., "Common
        Diffusion Noise Schedules and Sample Steps are Flawed", arXiv:2305.08891, algorithm 1).

        Raises TrainingError where the noise is predicted, which says nothing there.
        """
        if self.prediction != "velocity":
            raise TrainingError("a schedule that ends in noise alone is for models that predict the velocity",
                                field="train.zero_terminal_snr", found="one that predicts the noise",
                                remedy="set it to false, or choose a velocity checkpoint")  # fmt: skip
        roots = self.alphas_cumprod.double().sqrt()
        first, last = roots[0], roots[-1]
        return NoiseSchedule(((roots - last) * first / (first - last)).square().float(), self.prediction)

    @property
    def steps(self) -> int:
        return len(self.alphas_cumprod)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """(B, C, h, w) latents and noise mixed as at `timesteps` (B,)."""
        signal, sigma = self._amplitudes(latents, timesteps)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the U-Net should answer, (B, C, h, w)."""
        if self.prediction == "epsilon":
            return noise
        signal, sigma = self._amplitudes(latents, timesteps)
        return signal * noise - sigma * latents

    def picture(self, noisy: Tensor, answer: Tensor, timesteps: Tensor) -> Tensor:
        """The latent (B, C, h, w) that the network's `answer` at `timesteps` (B,) means: the inverse of `target`."""
        signal, sigma = self._amplitudes(noisy, timesteps)
        return (noisy - sigma * answer) / signal if self.prediction == "epsilon" else signal * noisy - sigma * answer

    def min_snr_weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Loss weights (B,) of Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy"
        (arXiv:2303.09556), for the network's own prediction; all 1 where `gamma` is 0."""
        if not gamma:
            return torch.ones(len(timesteps), device=timesteps.device)
        alphas = self.alphas_cumprod.to(timesteps.device)[timesteps]
        ratio = alphas / (1 - alphas)
        clipped = ratio.clamp(max=gamma)
        return clipped / ratio if self.prediction == "epsilon" else clipped / (ratio + 1)

    def _amplitudes(self, like: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod.to(like.device)[timesteps].to(like.dtype)[:, None, None, None]
        return alphas.sqrt(), (1 - alphas).sqrt()
