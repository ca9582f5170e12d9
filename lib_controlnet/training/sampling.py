"""A DDIM sampler under control, for looking at a training while it runs; it depends on no host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..nets.unet import UNetModel
from .kinds import Control
from .noise import NoiseSchedule


@dataclass(frozen=True, eq=False)
class Guide:
    """A control while sampling: `hints` (n, 3, H, W) in 0..1 (or latents, for kinds that read such), its weight, and
    the share of the steps in which it acts."""

    control: Control
    hints: Tensor
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def acts(self, share: float) -> bool:
        return self.weight != 0 and self.start <= share <= self.end


@dataclass(frozen=True, eq=False)
class Condition:
    """What pictures are to show: `context` (n, N, D) and, for SDXL, `y` (n, adm); `empty` and `empty_y` likewise with
    the empty prompt, (n, ...) or (1, ...)."""

    context: Tensor
    empty: Tensor
    y: Tensor | None = None
    empty_y: Tensor | None = None


@torch.no_grad()
def sample(
    unet: UNetModel,
    condition: Condition,
    noise: NoiseSchedule,
    size: tuple[int, int],
    *,
    seed: int | Sequence[int] = 0,
    steps: int = 20,
    cfg: float = 9.0,
    guide: Guide | None = None,
    after: Callable[[], None] | None = None,
) -> Tensor:
    """Latents (n, 4, h, w) of `size` (h, w) for the n prompts of `condition`; picture i starts from seed `seed` + i, or
    `seed[i]`. `after` is called after each step and may raise.

    DDIM (Song et al. 2021, eta 0) with the timesteps 951, 901 ... 1 of Stable Diffusion's samplers, or 999, 949 ... 49
    where the schedule ends in noise alone. The control acts on
    both halves of the guidance.
    """
    count, device = len(condition.context), condition.context.device
    seeds = range(seed, seed + count) if isinstance(seed, int) else seed
    start = [torch.randn(4, *size, generator=torch.Generator().manual_seed(one)) for one in seeds]
    x = torch.stack(start).to(device)
    both = torch.cat([condition.empty.expand(count, -1, -1), condition.context])
    y = None
    if condition.y is not None and condition.empty_y is not None:
        y = torch.cat([condition.empty_y.expand(count, -1), condition.y])
    features = None if guide is None else guide.control.encode(torch.cat([guide.hints, guide.hints]))
    times = _times(noise, steps)
    alphas = noise.alphas_cumprod.to(device)
    for index, time in enumerate(times[:-1]):
        doubled, timesteps = torch.cat([x, x]), torch.full((2 * count,), time, device=device)
        if guide is None or not guide.acts(index / steps):
            answer = unet(doubled, timesteps, both, y)
        else:
            answer = guide.control.predict(unet, doubled, timesteps, both, features, y, guide.weight)
        without, with_prompt = answer.float().chunk(2)
        guided = without + cfg * (with_prompt - without)
        now, then = alphas[time], alphas[times[index + 1]]
        clean, epsilon = _parts(x, guided, now, noise)
        x = then.sqrt() * clean + (1 - then).sqrt() * epsilon
        if after is not None:
            after()
    return x


def _times(noise: NoiseSchedule, steps: int) -> list[int]:
    """The timesteps of a sampling, and 0."""
    apart = noise.steps // steps
    first = noise.steps - 1 if not noise.alphas_cumprod[-1] else (steps - 1) * apart + 1
    return [*(first - index * apart for index in range(steps)), 0]


def _parts(x: Tensor, answer: Tensor, alpha: Tensor, noise: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """(clean latent, noise) in `x` according to the network's answer."""
    signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
    if noise.prediction == "epsilon":
        return (x - sigma * answer) / signal, answer
    return signal * x - sigma * answer, signal * answer + sigma * x
