"""The locked U-Net in eight or four bits, widened layer by layer when it computes.

A weight that is locked only multiplies: it needs no gradient, and what reads its layer is trained meanwhile to read it
as it is. "fp8": float8 with a scale for each output. "nf4": the 16 levels of Dettmers et al., "QLoRA"
(arXiv:2305.14314, appendix E), two weights a byte, with a scale for each 64 of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from ..core.precision import computed_in
from ..nets.unet import UNetModel

_WHOLE = ("time_embed.", "label_emb.", "input_blocks.0.", "out.")
"""Layers that are small and that everything passes."""
_BLOCK = 64
_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


@dataclass(frozen=True)
class Format:
    """`narrow`: a weight (outs, ...) -> (its numbers, their scales). `widen`: these, the levels, the weight's shape and
    a type -> the weight in that type. `levels`: what the numbers stand for, where they are no floats."""

    narrow: Callable[[Tensor], tuple[Tensor, Tensor]]
    widen: Callable[[Tensor, Tensor, Tensor, Sequence[int], torch.dtype], Tensor]
    levels: tuple[float, ...] = ()


def _to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    rows = weight.float().flatten(1)
    scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / torch.finfo(torch.float8_e4m3fn).max
    return (rows / scale).to(torch.float8_e4m3fn), scale


def _from_fp8(narrow: Tensor, scale: Tensor, levels: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    del levels
    return narrow.to(dtype).mul_(scale.to(dtype)).reshape(tuple(shape))


def _to_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    flat = weight.float().flatten()
    blocks = F.pad(flat, (0, -len(flat) % _BLOCK)).reshape(-1, _BLOCK)
    scale = blocks.abs().amax(1, keepdim=True).clamp(min=1e-12)
    levels = torch.tensor(_LEVELS, device=weight.device)
    nearest = torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    return nearest[:, ::2] * 16 + nearest[:, 1::2], scale


def _from_nf4(narrow: Tensor, scale: Tensor, levels: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    levels = levels.to(dtype)
    pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1)  # of each byte
    wide = pairs[narrow.int()].flatten(1).mul_(scale.to(dtype))
    return wide.flatten()[: math.prod(shape)].reshape(tuple(shape))


FORMATS: Mapping[str, Format] = {"fp8": Format(_to_fp8, _from_fp8), "nf4": Format(_to_nf4, _from_nf4, _LEVELS)}
"""As `train.base_weights` names them."""


class Narrow(nn.Module):
    """In the place of a Linear, a projection or a convolution that is locked. Nothing wide is kept for the backward
    pass: the weight is widened there once more."""

    levels: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, stored: tuple[nn.Parameter, nn.Parameter], form: str) -> None:
        super().__init__()
        self.weight, self.scale = stored
        self.bias = layer.bias
        self.register_buffer("levels", torch.tensor(FORMATS[form].levels, device=self.scale.device), persistent=False)
        conv = (layer.stride, layer.padding) if isinstance(layer, nn.Conv2d) else None
        self._settings = FORMATS[form].widen, tuple(layer.weight.shape), conv

    def forward(self, x: Tensor) -> Tensor:
        made: Any = _Product.apply(x, self.weight, self.scale, self.levels, *self._settings)
        if self.bias is None:
            return made
        bias = self.bias.to(made.dtype)
        return made + (bias if self._settings[2] is None else bias[:, None, None])

    def wide(self) -> Tensor:
        """The weight, in float32."""
        widen, shape, _ = self._settings
        return widen(self.weight, self.scale, self.levels, shape, torch.float32)


class _Product(torch.autograd.Function):
    """`x` times the widened weight."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        levels: Tensor,
        widen: Any,
        shape: tuple[int, ...],
        conv: Any,
    ) -> Tensor:
        dtype = computed_in(x)
        ctx.save_for_backward(weight, scale, levels)
        ctx.settings = widen, shape, conv, x.shape, x.dtype
        wide = widen(weight, scale, levels, shape, dtype)
        return F.linear(x.to(dtype), wide.flatten(1)) if conv is None else F.conv2d(x.to(dtype), wide, None, *conv)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,), (widen, shape, conv, given, dtype) = gradients, ctx.settings
        wide = widen(*ctx.saved_tensors, shape, gradient.dtype)
        if conv is None:
            back = gradient @ wide.flatten(1)
        else:
            back = conv2d_input(given, wide, gradient, *conv)
        return back.to(dtype), None, None, None, None, None, None


@torch.no_grad()
def narrow_base(unet: UNetModel, control: nn.Module, form: str) -> None:
    """Puts a `Narrow` in the place of each large layer of `unet` that is locked, and of each of `control` that acts
    with the same weight."""
    stored: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    locked = {id(weight) for name, weight in unet.named_parameters()
              if weight.ndim > 1 and not weight.requires_grad and not name.startswith(_WHOLE)}  # fmt: skip
    for network in (unet, control):
        for name, layer in list(network.named_modules()):
            if not isinstance(layer, nn.Linear | nn.Conv2d) or id(layer.weight) not in locked:
                continue
            if id(layer.weight) not in stored:
                number, scale = FORMATS[form].narrow(layer.weight)
                stored[id(layer.weight)] = (nn.Parameter(number, False), nn.Parameter(scale, False))
            parent, _, last = name.rpartition(".")
            network.get_submodule(parent).register_module(last, Narrow(layer, stored[id(layer.weight)], form))


def widened_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of `network` as if nothing in it were narrow."""
    made = dict(network.state_dict())
    for name, layer in network.named_modules():
        if isinstance(layer, Narrow):
            del made[f"{name}.scale"]
            made[f"{name}.weight"] = layer.wide()
    return made
