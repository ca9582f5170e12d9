"""Restart sampling (Xu et al., 2023): Heun steps that go back to more noise once or twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from modules.k_diffusion_mount import sampling
from torch import Tensor

Pair = tuple[Tensor, Tensor]
RestartList = dict[float, list[float]]
"""{lowest sigma: [steps, times, highest sigma]}"""


def _nearest(sigmas: Tensor, value: float) -> int:
    return int(torch.argmin(abs(sigmas - value), dim=0))


def _automatic(sigmas: Tensor) -> tuple[Tensor, RestartList]:
    """A plan that costs as many steps as `sigmas` has: none below 20 steps."""
    steps = sigmas.shape[0] - 1
    if steps < 20:
        return sigmas, {}
    restart_steps, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    low, high = sigmas[-2].item(), sigmas[0].item()
    shorter = sampling.get_sigmas_karras(steps - restart_steps * times, low, high, device=str(sigmas.device))
    return shorter, {0.1: [restart_steps + 1, times, 2]}


def _plan(sigmas: Tensor, restarts: RestartList) -> list[Pair]:
    """All steps as (from, to)."""
    at = {_nearest(sigmas, low): plan for low, plan in restarts.items()}
    pairs: list[Pair] = []
    for i in range(len(sigmas) - 1):
        pairs.append((sigmas[i], sigmas[i + 1]))
        if i + 1 not in at:
            continue
        steps, times, highest = at[i + 1]
        top = _nearest(sigmas, highest)
        if top < i + 1:
            again = sampling.get_sigmas_karras(
                int(steps), sigmas[i + 1].item(), sigmas[top].item(), device=str(sigmas.device)
            )
            pairs += list(itertools.pairwise(again)) * int(times)
    return pairs


@torch.no_grad()
def restart_sampler(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    s_noise: float = 1.0,
    restart_list: RestartList | None = None,
) -> Tensor:
    """Sample x (B, C, h, w) from sigmas[0] on."""
    args = extra_args or {}
    rows = x.new_ones([x.shape[0]])
    if restart_list is None:
        sigmas, restart_list = _automatic(sigmas)
    last: Tensor | None = None
    for step, (old, new) in enumerate(_plan(sigmas, restart_list)):
        if last is not None and last < old:
            x = x + sampling.torch.randn_like(x) * s_noise * (old**2 - last**2) ** 0.5
        denoised = model(x, old * rows, **args)
        slope = sampling.to_d(x, old, denoised)
        if callback is not None:
            callback({"x": x, "i": step, "sigma": new, "sigma_hat": old, "denoised": denoised})
        ahead = x + slope * (new - old)
        if new != 0:
            other = sampling.to_d(ahead, new, model(ahead, new * rows, **args))
            ahead = x + (slope + other) / 2 * (new - old)
        x, last = ahead, new
    return x
