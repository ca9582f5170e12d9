"""Noise schedules of k-diffusion samplers: `function(n, sigma_min, sigma_max, ...)` gives n + 1 sigmas ending in 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from modules import shared
from modules.k_diffusion_mount import sampling
from torch import Tensor


@dataclass
class Scheduler:
    """A noise schedule; "automatic" has no function, the sampler decides. `default_rho` is -1 where there is no rho."""

    name: str
    label: str
    function: Callable[..., Tensor] | None
    default_rho: float = -1
    need_inner_model: bool = False
    aliases: list[str] | None = None


def _ending_in_zero(sigmas: list[float], device: Any) -> Tensor:
    return torch.FloatTensor([*sigmas, 0.0]).to(device)


def uniform(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    return inner_model.get_sigmas(n).to(device)


def _between(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any, drop_last: bool) -> Tensor:
    start = inner_model.sigma_to_t(torch.tensor(sigma_max))
    end = inner_model.sigma_to_t(torch.tensor(sigma_min))
    times = (
        torch.linspace(float(start), float(end), n + 1)[:-1]
        if drop_last
        else torch.linspace(float(start), float(end), n)
    )
    return _ending_in_zero([float(inner_model.t_to_sigma(t)) for t in times], device)


def sgm_uniform(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    return _between(n, sigma_min, sigma_max, inner_model, device, drop_last=True)


def normal_scheduler(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    return _between(n, sigma_min, sigma_max, inner_model, device, drop_last=False)


AYS_SD15 = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
AYS_SDXL = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]


def align_your_steps(n: int, sigma_min: float, sigma_max: float, device: Any) -> Tensor:
    """Table of "Align Your Steps" (Sabour et al., 2024), interpolated in log sigma for other step counts."""
    table = AYS_SDXL if shared.sd_model.is_sdxl else AYS_SD15
    if n == len(table):
        return _ending_in_zero(table, device)
    logs = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(table)), np.log(table[::-1]))
    return _ending_in_zero(list(np.exp(logs)[::-1]), device)


def kl_optimal(n: int, sigma_min: float, sigma_max: float, device: Any) -> Tensor:
    low = torch.arctan(torch.tensor(sigma_min, device=device))
    high = torch.arctan(torch.tensor(sigma_max, device=device))
    share = torch.arange(n + 1, device=device) / n
    return torch.tan(share * low + (1.0 - share) * high)


def simple_scheduler(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    stride = len(inner_model.sigmas) / n
    return _ending_in_zero([float(inner_model.sigmas[-(1 + int(i * stride))]) for i in range(n)], device)


def ddim_scheduler(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    count = len(inner_model.sigmas)
    indexes = range(1, count, max(count // n, 1))
    return _ending_in_zero([float(inner_model.sigmas[i]) for i in reversed(indexes)], device)


def beta_scheduler(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    """Quantiles of a beta distribution (Lee et al., 2024, Beta Sampling is All You Need)."""
    from scipy import stats

    alpha, beta = shared.opts.beta_dist_alpha, shared.opts.beta_dist_beta
    shares = [float(stats.beta.ppf(x, alpha, beta)) for x in 1 - np.linspace(0, 1, n)]
    return _ending_in_zero([sigma_min + x * (sigma_max - sigma_min) for x in shares], device)


schedulers = [
    Scheduler("automatic", "Automatic", None),
    Scheduler("uniform", "Uniform", uniform, need_inner_model=True),
    Scheduler("karras", "Karras", sampling.get_sigmas_karras, default_rho=7.0),
    Scheduler("exponential", "Exponential", sampling.get_sigmas_exponential),
    Scheduler("polyexponential", "Polyexponential", sampling.get_sigmas_polyexponential, default_rho=1.0),
    Scheduler("sgm_uniform", "SGM Uniform", sgm_uniform, need_inner_model=True, aliases=["SGMUniform"]),
    Scheduler("kl_optimal", "KL Optimal", kl_optimal),
    Scheduler("align_your_steps", "Align Your Steps", align_your_steps),
    Scheduler("simple", "Simple", simple_scheduler, need_inner_model=True),
    Scheduler("normal", "Normal", normal_scheduler, need_inner_model=True),
    Scheduler("ddim", "DDIM", ddim_scheduler, need_inner_model=True),
    Scheduler("beta", "Beta", beta_scheduler, need_inner_model=True),
]
schedulers_map = {**{x.name: x for x in schedulers}, **{x.label: x for x in schedulers}}
