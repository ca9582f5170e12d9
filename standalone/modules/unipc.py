"""UniPC (Zhao et al., 2023): multistep predictor-corrector over data predictions, variants bh1 and bh2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from modules import shared
from torch import Tensor


class NoiseSchedule:
    """Alpha, sigma and half log-SNR of a continuous time in 1/N..1, linear between the model's N steps."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.log_alphas = 0.5 * torch.log(alphas_cumprod.float().cpu())
        self.count = len(self.log_alphas)

    def log_alpha(self, t: Tensor) -> Tensor:
        position = (t * self.count - 1).clamp(0, self.count - 1)
        low = position.floor().long().clamp(max=self.count - 2)
        share = position - low
        return self.log_alphas[low] * (1 - share) + self.log_alphas[low + 1] * share

    def terms(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(alpha, sigma, half log-SNR)."""
        log_alpha = self.log_alpha(t)
        sigma = torch.sqrt(1.0 - torch.exp(2.0 * log_alpha))
        return torch.exp(log_alpha), sigma, log_alpha - torch.log(sigma)

    def time_of(self, half_log_snr: Tensor) -> Tensor:
        """The time of a half log-SNR."""
        log_alpha = -0.5 * torch.logaddexp(torch.zeros(()), -2.0 * half_log_snr)
        after = torch.searchsorted(-self.log_alphas, -log_alpha).clamp(1, self.count - 1)
        a, b = self.log_alphas[after - 1], self.log_alphas[after]
        return (after + (log_alpha - a) / (b - a)) / self.count


def time_steps(schedule: NoiseSchedule, kind: str, start: float, end: float, count: int) -> Tensor:
    """`count` + 1 times from `start` down to `end`."""
    if kind == "time_uniform":
        return torch.linspace(start, end, count + 1)
    if kind == "time_quadratic":
        return torch.linspace(start**0.5, end**0.5, count + 1) ** 2
    if kind == "logSNR":
        first, last = (float(schedule.terms(torch.tensor(t))[2]) for t in (start, end))
        return schedule.time_of(torch.linspace(first, last, count + 1))
    raise ValueError(f"unknown UniPC skip type {kind!r}")


class UniPC:
    """One sampling run. `predict(x, t)` gives the clean picture."""

    def __init__(self, schedule: NoiseSchedule, predict: Callable[[Tensor, Tensor], Tensor], variant: str) -> None:
        if variant not in ("bh1", "bh2"):
            raise ValueError(f"UniPC variant {variant!r} is not supported by this host; choose bh1 or bh2")
        self.schedule = schedule
        self.predict = predict
        self.variant = variant
        self.times: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def _coefficients(self, h: Tensor, ratios: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(R, b, e^-h - 1, B(h)) of the order that `ratios` has."""
        hh = -h
        phi_1 = torch.expm1(hh)
        b_h = hh if self.variant == "bh1" else torch.expm1(hh)
        phi, factorial = phi_1 / hh - 1, 1
        rows, right = [], []
        for i in range(1, len(ratios) + 1):
            rows.append(ratios ** (i - 1))
            right.append(phi * factorial / b_h)
            factorial *= i + 1
            phi = phi / hh - 1 / factorial
        return torch.stack(rows), torch.stack(right), phi_1, b_h

    def update(self, x: Tensor, t: Tensor, order: int, corrector: bool) -> tuple[Tensor, Tensor | None]:
        """x at time `t` from the last `order` outputs; with the corrector also the model's output there."""
        terms = [self.schedule.terms(time) for time in self.times]
        _, sigma_0, lambda_0 = terms[-1]
        alpha, sigma, lambda_t = self.schedule.terms(t)
        h = lambda_t - lambda_0
        older = range(2, order + 1)
        ratios = torch.stack([*((terms[-i][2] - lambda_0) / h for i in older), torch.ones(())])
        matrix, right, phi_1, b_h = self._coefficients(h, ratios)
        last = self.outputs[-1]
        slopes = [(self.outputs[-i] - last) / float(r) for i, r in zip(older, ratios, strict=False)]
        base = float(sigma / sigma_0) * x - float(alpha * phi_1) * last
        scale = float(alpha * b_h)
        half = torch.tensor([0.5])
        weights = half if order == 2 else torch.linalg.solve(matrix[:-1, :-1], right[:-1]) if slopes else half[:0]
        predicted = base - scale * _weighted(weights, slopes, x)
        if not corrector:
            return predicted, None
        output = self.predict(predicted, t)
        weights = half if order == 1 else torch.linalg.solve(matrix, right)
        return base - scale * _weighted(weights, [*slopes, output - last], x), output

    def sample(
        self, x: Tensor, times: Tensor, order: int, lower_order_final: bool, after: Callable[..., None]
    ) -> Tensor:
        """Run along `times`; `after(x, output)` is called per step."""
        steps = len(times) - 1
        if steps < order:
            raise ValueError("UniPC order must be < sampling steps")
        self.times, self.outputs = [times[0]], [self.predict(x, times[0])]
        for step in range(1, steps + 1):
            limit = min(order, steps + 1 - step) if lower_order_final else order
            used = step if step < order else limit
            x, output = self.update(x, times[step], used, corrector=step < steps)
            after(x, output)
            if output is not None:
                self.times = [*self.times, times[step]][-order:]
                self.outputs = [*self.outputs, output][-order:]
        return x


def _weighted(weights: Tensor, tensors: list[Tensor], like: Tensor) -> Tensor:
    total = torch.zeros_like(like)
    for weight, tensor in zip(weights, tensors, strict=True):
        total = total + float(weight) * tensor
    return total


@torch.no_grad()
def unipc(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    is_img2img: bool = False,
) -> Tensor:
    """Sample x (B, C, h, w) with as many model calls as `timesteps` has entries."""
    schedule = NoiseSchedule(model.inner_model.inner_model.alphas_cumprod)
    opts = shared.opts
    start = float(timesteps[-1]) / 1000 + 1 / 1000 if is_img2img else 1.0
    times = time_steps(schedule, opts.uni_pc_skip_type, start, 1.0 / schedule.count, len(timesteps))
    rows = x.new_ones(x.shape[0])
    calls = iter(range(10**9))

    def predict(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, _ = schedule.terms(t)
        noise = model(x, float((t - 1.0 / schedule.count) * 1000.0) * rows, **(extra_args or {}))
        return (x - float(sigma) * noise) / float(alpha)

    def after(x: Tensor, output: Tensor | None) -> None:
        if callback is not None:
            callback({"x": x, "i": next(calls), "sigma": 0, "sigma_hat": 0, "denoised": output})

    solver = UniPC(schedule, predict, opts.uni_pc_variant)
    return solver.sample(x, times, int(opts.uni_pc_order), opts.uni_pc_lower_order_final, after)
