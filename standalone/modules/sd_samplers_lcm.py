"""Sampling of latent consistency models (Luo et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from modules import sd_samplers_common, shared
from modules.k_diffusion_mount import append_dims, external, sampling
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from modules.sd_samplers_kdiffusion import KDiffusionSampler
from torch import Tensor

ORIGINAL_STEPS = 50
SKIP = 1000 // ORIGINAL_STEPS


class LCMCompVisDenoiser(external.DiscreteEpsDDPMDenoiser):
    """Sigmas of the 50 timesteps the model was distilled for, and its boundary scaling."""

    sigmas: Tensor
    log_sigmas: Tensor
    inner_model: Any

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.alphas_cumprod[SKIP - 1 :: SKIP].float(), quantize=None)

    def get_sigmas(self, n: int | None = None) -> Tensor:
        if n is None:
            return sampling.append_zero(self.sigmas.flip(0))
        start, end = self.sigma_to_t(self.sigma_max), self.sigma_to_t(self.sigma_min)
        times = torch.linspace(float(start), float(end), n, device=shared.sd_model.device)
        return sampling.append_zero(self.t_to_sigma(times))

    def sigma_to_t(self, sigma: Tensor, quantize: bool | None = None) -> Tensor:
        distances = sigma.log() - self.log_sigmas[:, None]
        return distances.abs().argmin(dim=0).view(sigma.shape) * SKIP + (SKIP - 1)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        return super().t_to_sigma(torch.clamp(((t - (SKIP - 1)) / SKIP).float(), min=0, max=len(self.sigmas) - 1))

    def get_eps(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.inner_model.apply_model(*args, **kwargs)

    def forward(self, input: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        """The clean picture that a consistency function gives for `input` at `sigma`."""
        c_out, c_in = (append_dims(x, input.ndim) for x in self.get_scalings(sigma))
        clean = input + self.get_eps(input * c_in, self.sigma_to_t(sigma), **kwargs) * c_out
        time = append_dims(self.sigma_to_t(sigma), input.ndim) * 10.0
        data = 0.5
        return time / (time**2 + data**2) ** 0.5 * clean + data**2 / (time**2 + data**2) * input


@torch.no_grad()
def sample_lcm(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    noise_sampler: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Clean picture, noise of the next sigma, and again."""
    noise_of = noise_sampler or sampling.default_noise_sampler(x)
    rows = x.new_ones([x.shape[0]])
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        clean = model(x, sigma * rows, **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": clean})
        x = clean + following * noise_of(sigma, following) if following > 0 else clean
    return x


class CFGDenoiserLCM(CFGDenoiser):
    def wrapped_model(self) -> Any:
        return LCMCompVisDenoiser(shared.sd_model)


class LCMSampler(KDiffusionSampler):
    denoiser = CFGDenoiserLCM


samplers_data_lcm = [sd_samplers_common.SamplerData("LCM", lambda model: LCMSampler(sample_lcm, model), ["k_lcm"], {})]
