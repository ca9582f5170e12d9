"""Adafactor for trainings that must be small: a matrix's second moments are kept as one row and one column."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .chance import generator_of

_ROUNDING = 4
_DECAY, _CLIP, _LEAST = -0.8, 1.0, 1e-30


class Adafactor(torch.optim.Optimizer):
    """Shazeer and Stern 2018 (arXiv:1804.04235) at a given learning rate, without momentum, with the decoupled decay of
    AdamW. What lies behind the first dimension of a convolution is taken as one.

    Weights in bfloat16 are computed in float32 and rounded stochastically, without which small steps would vanish.
    """

    def __init__(self, weights: Iterable[Any], lr: float, weight_decay: float = 0.0, seed: int = 0) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})
        self._seed = seed
        self._numbers = {weight: n for n, weight in enumerate(w for g in self.param_groups for w in g["params"])}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """All weights that have a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.step_one(weight, group)
        return None

    @torch.no_grad()
    def step_one(self, weight: Tensor, group: dict[str, Any]) -> None:
        """Only `weight`, which is of `group`."""
        assert weight.grad is not None
        state = self.state[weight]
        gradient = weight.grad.float().reshape(len(weight), -1) if weight.ndim > 1 else weight.grad.float()
        if not state:
            state["step"] = 0
            if gradient.ndim > 1:
                state["row"], state["column"] = (
                    gradient.new_zeros(gradient.shape[0]),
                    gradient.new_zeros(gradient.shape[1]),
                )
            else:
                state["square"] = torch.zeros_like(gradient)
        state["step"] += 1
        kept = 1 - state["step"] ** _DECAY
        update = gradient.square().add_(_LEAST)
        if gradient.ndim > 1:
            state["row"].lerp_(update.mean(1), 1 - kept)
            state["column"].lerp_(update.mean(0), 1 - kept)
            row = (state["row"] / state["row"].mean()).rsqrt_()
            update = gradient.mul_(row[:, None]).mul_(state["column"].rsqrt())
        else:
            state["square"].lerp_(update, 1 - kept)
            update = state["square"].rsqrt().mul_(gradient)
        size = update.norm() / update.numel() ** 0.5
        update.mul_(group["lr"] / torch.clamp(size / _CLIP, min=1.0))
        value = weight.float()
        value.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.view_as(weight))
        if weight.dtype == torch.bfloat16:
            generator = generator_of(self._seed, _ROUNDING, self._numbers[weight], state["step"])
            value = rounded(value, generator)
        weight.copy_(value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """PyTorch casts states to the weights' type, which is too coarse for sums of squares."""
        exact = state_dict["state"]
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for number, saved in exact.items():
            own = self.state[weights[number]]
            for key, value in saved.items():
                own[key] = value.to(weights[number].device) if isinstance(value, Tensor) else value


def rounded(value: Tensor, generator: torch.Generator) -> Tensor:
    """float32 `value` as bfloat16, up or down by chance, so that the mean is `value`."""
    if value.device.type == "cpu":
        noise = torch.randint(0, 1 << 16, value.shape, dtype=torch.int32, generator=generator)
    else:
        seed = int(torch.randint(0, 1 << 62, (1,), generator=generator).item())
        there = torch.Generator(value.device).manual_seed(seed)
        noise = torch.randint(0, 1 << 16, value.shape, dtype=torch.int32, generator=there, device=value.device)
    bits = (value.contiguous().view(torch.int32) + noise) & -(1 << 16)
    return torch.where(torch.isfinite(value), bits.view(torch.float32), value).to(torch.bfloat16)


def step_in_backward(optimizer: Adafactor) -> None:
    """From now on each weight is moved as soon as its gradient is there, and the gradient goes: only one lives at a
    time."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(_mover(optimizer, group))


def _mover(optimizer: Adafactor, group: dict[str, Any]) -> Callable[[Tensor], None]:
    def move(weight: Tensor) -> None:
        optimizer.step_one(weight, group)
        weight.grad = None

    return move
