"""What the kinds say that they cost, against the operations that PyTorch counts at the published sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lib_controlnet.families.base import CONTROLNET_SHARES, describe_config
from lib_controlnet.families.registry import discover
from lib_controlnet.nets.brushnet import BrushNet
from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.operations import Operations
from lib_controlnet.nets.sparsectrl import SparseConfig, SparseControlNet
from lib_controlnet.nets.unet import UNetModel
from tests.nets.sizes import SD1, SDXL

LARGE = {
    "SD 1.x": replace(SD1, model_channels=320, context_dim=768),
    "SDXL": replace(SDXL, model_channels=320, context_dim=2048, adm_channels=2816),
}
SIDES = {"SD 1.x": 64, "SDXL": 128}
Call = Callable[[Tensor, Tensor, Tensor, Any], object]


def _controlnet(config: UNetConfig) -> Call:
    net = ControlNet(ControlNetConfig(config), Operations())
    return lambda x, t, context, y: net(x, torch.empty(1, 320, *x.shape[2:]), t, context, y)


def _sparse(config: UNetConfig) -> Call:
    net = SparseControlNet(SparseConfig(ControlNetConfig(config, 4), False, 32), Operations())
    return lambda x, t, context, y: net(x, torch.empty(1, 320, *x.shape[2:]), t, context, y)


def _brushnet(config: UNetConfig) -> Call:
    bare = (0,) * len(config.transformer_depth)
    return _additions(replace(config, transformer_depth=bare, middle_depth=0, context_dim=0))


def _additions(config: UNetConfig) -> Call:
    net = BrushNet(replace(config, in_channels=9), Operations())
    return lambda x, t, context, y: net.additions(torch.empty(2, 9, *x.shape[2:]), t, context, y)


NETS = {
    "controlnet": _controlnet,
    "sparsectrl": _sparse,
    "brushnet": _brushnet,
    "powerpaint": _additions,
}
"""Of families with a network of a size of its own; ControlNet-XS's files have several, and the rest none in a step."""
CASES = [(family.id, kind) for family in discover() if family.id in NETS for kind in family.shares if kind in LARGE]


@cache
def of_unet(kind: str) -> int:
    """Operations of a step of the checkpoint's own."""
    return flops(UNetModel(LARGE[kind], Operations()), LARGE[kind], SIDES[kind])


def flops(call: Call, config: UNetConfig, side: int) -> int:
    context = torch.empty(2, 77, config.context_dim)
    y = None if config.adm_channels is None else torch.empty(2, config.adm_channels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(torch.empty(2, 4, side, side), torch.empty(2), context, y)
    return counter.get_total_flops()


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_the_share_is_what_is_counted(family: str, kind: str) -> None:
    config, side = LARGE[kind], SIDES[kind]
    assert describe_config(config) == kind
    with torch.device("meta"):
        share = flops(NETS[family](config), config, side) / of_unet(kind)
    said = next(one for one in discover() if one.id == family).shares[kind]
    assert share == pytest.approx(said, abs=0.002)


@pytest.mark.parametrize("family", ["control_lora", "controlnet_union", "ctrlora"])
def test_what_runs_as_a_controlnet_costs_as_much(family: str) -> None:
    assert next(one for one in discover() if one.id == family).shares is CONTROLNET_SHARES


def test_kinds_that_compute_once_a_pass_say_so() -> None:
    assert {family.id for family in discover() if not family.shares} == {
        "ip_adapter",
        "lllite",
        "pulid",
        "t2i_adapter",
        "t2i_style",
    }
