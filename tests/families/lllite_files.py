"""ControlLLLite files with random weights, and kohya's modules before a U-Net's layers as the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.unet import UNetModel
from tests.nets.ldm_oracle import randomise
from tests.nets.lllite_reference import ReferenceModule

LAYERS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q")
"""Of each transformer block of input blocks and middle: what the training script makes modules for."""


def depth_of(name: str) -> int:
    """kohya's rule, by the block's number."""
    number = int(name.split(".")[1]) if name.startswith("input_blocks") else 9
    return 1 if number <= 2 else 2 if number <= 5 else 3


def modules(config: UNetConfig, layers: tuple[str, ...] = LAYERS, seed: int = 7) -> dict[str, ReferenceModule]:
    """By the name of the layer before which each acts."""
    with torch.device("meta"):
        unet = UNetModel(config)
    made: dict[str, ReferenceModule] = {}
    for name, layer in unet.named_modules():
        if name.startswith("output_blocks") or not any(name.endswith(f".{ends}") for ends in layers):
            continue
        conv = isinstance(layer, nn.Conv2d)
        inputs: Any = layer.in_channels if conv else layer.in_features
        made[name] = ReferenceModule(inputs, 12, 16, depth_of(name), conv)
        randomise(made[name], seed=seed + len(made))
        with torch.no_grad():
            made[name].up[0].weight.mul_(4.0)  # type: ignore[operator]
    return made


def weights(made: Mapping[str, ReferenceModule]) -> dict[str, Tensor]:
    """As files have them."""
    return {
        f"lllite_unet_{name.replace('.', '_')}.{key}": value.contiguous()
        for name, module in made.items()
        for key, value in module.state_dict().items()
    }


@contextmanager
def acting(unet: nn.Module, made: Mapping[str, ReferenceModule], hint: Tensor, weight: float) -> Iterator[None]:
    """kohya's modules before the layers of `unet`. hint: (n, 3, H, W) in 0..1."""
    sizes: dict[str, tuple[int, int]] = {}
    with ExitStack() as undo:
        for name, module in made.items():
            block = name.partition(".transformer_blocks.")[0]

            def measure(_m: nn.Module, args: Any, block: str = block) -> None:
                sizes[block] = tuple(args[0].shape[2:])

            def change(_m: nn.Module, args: Any, module: Any = module, block: str = block) -> Any:
                size = args[0].shape[2:] if module.conv else sizes[block]
                return (module(args[0], hint * 2 - 1, weight, tuple(size)), *args[1:])

            if not module.conv:
                undo.callback(unet.get_submodule(block).register_forward_pre_hook(measure).remove)
            undo.callback(unet.get_submodule(name).register_forward_pre_hook(change).remove)
        yield
