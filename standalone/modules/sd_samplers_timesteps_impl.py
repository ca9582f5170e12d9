"""DDIM, DDIM CFG++, PLMS and UniPC over `model(x, timestep, **extra_args)` = guided noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from modules.k_diffusion_mount import sampling
from modules.unipc import unipc
from torch import Tensor

__all__ = ["ddim", "ddim_cfgpp", "plms", "unipc"]

Callback = Callable[[dict[str, Any]], None] | None


class _Schedule:
    """Alphas of the timesteps (rising), each with the one before it."""

    def __init__(self, model: Any, timesteps: Tensor, x: Tensor) -> None:
        alphas_cumprod = model.inner_model.inner_model.alphas_cumprod
        self.timesteps = timesteps
        self.alphas = alphas_cumprod[timesteps]
        self.roots = torch.sqrt(1 - self.alphas)
        before = torch.nn.functional.pad(timesteps[:-1], pad=(1, 0))
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        self.alphas_prev = alphas_cumprod[before].to(wide)
        self.ones = x.new_ones((x.shape[0], 1, 1, 1))
        self.rows = x.new_ones(x.shape[0])

    def sigmas(self, eta: float) -> Tensor:
        """DDIM's noise per step (Song et al., 2020, equation 16)."""
        prev, alphas = self.alphas_prev.cpu(), self.alphas.cpu()
        return eta * torch.sqrt((1 - prev) / (1 - alphas) * (1 - alphas / prev))

    def indexes(self) -> range:
        """Steps from noise to picture; the first timestep is only a target, so one call less than timesteps."""
        return range(len(self.timesteps) - 1, 0, -1)

    def time(self, index: int) -> Tensor:
        return self.timesteps[index].item() * self.rows

    def split(self, x: Tensor, noise: Tensor, index: int) -> Tensor:
        """The clean picture that `noise` in `x` implies."""
        a_t = self.alphas[index].item() * self.ones
        return (x - self.roots[index].item() * self.ones * noise) / a_t.sqrt()


def _tell(callback: Callback, i: int, x: Tensor, denoised: Tensor) -> None:
    if callback is not None:
        callback({"x": x, "i": i, "sigma": 0, "sigma_hat": 0, "denoised": denoised})


def _ddim(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    extra_args: dict[str, Any] | None,
    callback: Callback,
    eta: float,
    direction: Callable[[Tensor], Tensor],
) -> Tensor:
    s = _Schedule(model, timesteps, x)
    sigmas = s.sigmas(eta)
    for i, index in enumerate(s.indexes()):
        e_t = model(x, s.time(index), **(extra_args or {}))
        pred_x0 = s.split(x, e_t, index)
        a_prev = s.alphas_prev[index].item() * s.ones
        sigma_t = sigmas[index].item() * s.ones
        dir_xt = (1.0 - a_prev - sigma_t**2).sqrt() * direction(e_t)
        noise = sigma_t * sampling.torch.randn_like(x)
        x = a_prev.sqrt() * pred_x0 + dir_xt + noise
        _tell(callback, i, x, pred_x0)
    return x


@torch.no_grad()
def ddim(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback = None,
    disable: bool | None = None,
    eta: float = 0.0,
) -> Tensor:
    return _ddim(model, x, timesteps, extra_args, callback, eta, lambda e_t: e_t)


@torch.no_grad()
def ddim_cfgpp(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback = None,
    disable: bool | None = None,
    eta: float = 0.0,
) -> Tensor:
    """CFG++ (Chung et al., 2024): steps along the unconditional noise; CFG 12.5 means full guidance."""
    model.cond_scale_miltiplier = 1 / 12.5
    model.need_last_noise_uncond = True
    return _ddim(model, x, timesteps, extra_args, callback, eta, lambda _: model.last_noise_uncond)


def _adams_bashforth(e_t: Tensor, old: list[Tensor]) -> Tensor:
    """Linear multistep combination of the present and up to three older predictions."""
    if len(old) == 1:
        return (3 * e_t - old[-1]) / 2
    if len(old) == 2:
        return (23 * e_t - 16 * old[-1] + 5 * old[-2]) / 12
    return (55 * e_t - 59 * old[-1] + 37 * old[-2] - 9 * old[-3]) / 24


@torch.no_grad()
def plms(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback = None,
    disable: bool | None = None,
) -> Tensor:
    """Pseudo linear multistep (Liu et al., 2022); the first step costs two calls."""
    s = _Schedule(model, timesteps, x)
    args = extra_args or {}
    old: list[Tensor] = []

    def step(e_t: Tensor, index: int) -> tuple[Tensor, Tensor]:
        pred_x0 = s.split(x, e_t, index)
        a_prev = s.alphas_prev[index].item() * s.ones
        return a_prev.sqrt() * pred_x0 + (1.0 - a_prev).sqrt() * e_t, pred_x0

    for i, index in enumerate(s.indexes()):
        e_t = model(x, s.time(index), **args)
        if not old:
            ahead, _ = step(e_t, index)
            e_t_prime = (e_t + model(ahead, s.time(max(index - 1, 0)), **args)) / 2
        else:
            e_t_prime = _adams_bashforth(e_t, old)
        x, pred_x0 = step(e_t_prime, index)
        old = [*old, e_t][-3:]
        _tell(callback, i, x, pred_x0)
    return x
