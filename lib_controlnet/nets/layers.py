"""The layers of a U-Net by LDM name, as its sizes say, for control models that name the layers in which they act."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .config import UNetConfig


@dataclass(frozen=True)
class LayerInputs:
    """channels: of what a layer gets. conv: it gets features (B, C, h, w); else tokens (B, N, C)."""

    channels: int
    conv: bool = False


def layer_inputs(config: UNetConfig) -> Mapping[str, LayerInputs]:
    """The convolutions of residual blocks and between levels, and the linear layers of attentions."""
    found: dict[str, LayerInputs] = {}
    skips = [config.model_channels]
    found["input_blocks.0.0"] = LayerInputs(config.in_channels, True)
    last = len(config.channel_mult) - 1
    for level, mult in enumerate(config.channel_mult):
        width = mult * config.model_channels
        for _ in range(config.num_res_blocks):
            block = f"input_blocks.{len(skips)}"
            found |= _block(config, block, skips[-1], width, config.transformer_depth[level])
            skips.append(width)
        if level < last:
            found[f"input_blocks.{len(skips)}.0.op"] = LayerInputs(width, True)
            skips.append(width)
    width = config.middle_channels
    found |= _block(config, "middle_block", width, width, config.middle_depth)
    found |= _residual("middle_block.2", width, width)
    found |= _output_blocks(config, skips)
    return found


def _output_blocks(config: UNetConfig, skips: list[int]) -> dict[str, LayerInputs]:
    found: dict[str, LayerInputs] = {}
    trunk, index = config.middle_channels, 0
    for level in reversed(range(len(config.channel_mult))):
        width, depth = config.channel_mult[level] * config.model_channels, config.transformer_depth[level]
        for place in range(config.num_res_blocks + 1):
            block = f"output_blocks.{index}"
            found |= _block(config, block, trunk + skips.pop(), width, depth)
            if level and place == config.num_res_blocks:
                found[f"{block}.{2 if depth else 1}.conv"] = LayerInputs(width, True)
            trunk, index = width, index + 1
    return found


def _block(config: UNetConfig, name: str, given: int, width: int, depth: int) -> dict[str, LayerInputs]:
    found = _residual(f"{name}.0", given, width)
    if depth > 0:
        found |= dict(_transformer(config, f"{name}.1", width, depth))
    return found


def _residual(name: str, given: int, width: int) -> dict[str, LayerInputs]:
    found = {f"{name}.in_layers.2": LayerInputs(given, True), f"{name}.out_layers.3": LayerInputs(width, True)}
    if given != width:
        found[f"{name}.skip_connection"] = LayerInputs(given, True)
    return found


def _transformer(config: UNetConfig, name: str, width: int, depth: int) -> Iterator[tuple[str, LayerInputs]]:
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for which, context in (("attn1", width), ("attn2", config.context_dim)):
            for layer, channels in (("to_q", width), ("to_k", context), ("to_v", context), ("to_out.0", width)):
                yield f"{block}.{which}.{layer}", LayerInputs(channels)
