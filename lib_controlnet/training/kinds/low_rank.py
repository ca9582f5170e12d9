"""Layers whose weights are another network's, with a change of two thin factors that learns (Hu et al.,
arXiv:2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nets.unet import UNetModel


class Changed(nn.Module):
    """`base` is a Linear, a projection or a convolution; its weight W acts as W + up @ down. At first up is 0."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.base: nn.Module = base
        weight = base.weight
        self._conv = (base.stride, cast("tuple[int, int]", base.padding)) if isinstance(base, nn.Conv2d) else None
        outs, rest = weight.shape[0], weight.shape[1:]
        flat = (1,) * (weight.dim() - 2)
        self.down = nn.Parameter(torch.empty(rank, *rest, device=weight.device))
        self.up = nn.Parameter(torch.empty(outs, rank, *flat, device=weight.device))
        if not weight.is_meta:
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
            nn.init.zeros_(self.up)

    def forward(self, x: Tensor) -> Tensor:
        """What the changed layer gives; the product of the factors is never made."""
        if self._conv is not None:
            narrow = F.conv2d(x, self.down, None, *self._conv)
            return self.base(x) + F.conv2d(narrow, self.up)
        return self.base(x) + F.linear(F.linear(x, self.down.flatten(1)), self.up.flatten(1))


def change(net: nn.Module, rank: int | Mapping[str, int], wanted: Callable[[str, nn.Module], bool]) -> None:
    """Puts a `Changed` in the place of each layer that is `wanted` (name, layer), where factors of `rank` (or of a rank
    by the layer's name) are smaller than the layer itself."""
    for name, layer in list(net.named_modules()):
        if not isinstance(layer, nn.Linear | nn.Conv2d) or not wanted(name, layer):
            continue
        own = rank if isinstance(rank, int) else rank.get(name, 0)
        outs, ins = layer.weight.shape[0], math.prod(layer.weight.shape[1:])
        if 0 < own * (outs + ins) < outs * ins:
            parent, _, last = name.rpartition(".")
            net.get_submodule(parent).register_module(last, Changed(layer, own))


def share(net: nn.Module, unet: UNetModel) -> None:
    """The weights that are changed by factors are the U-Net's own from now on, no copies."""
    theirs = dict(unet.named_parameters())
    for name, module in net.named_modules():
        if isinstance(module, Changed):
            module.base.weight = theirs[f"{name}.weight"]


def unchanged(name: str) -> str:
    """A weight's name in the network, as it was before layers were changed."""
    return name.replace(".base.", ".")
