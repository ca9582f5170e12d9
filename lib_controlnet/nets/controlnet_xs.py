"""ControlNet-XS: a narrow encoder that computes beside the U-Net's and takes turns with it, block by block.

Zavadski, Feiden and Rother, "ControlNet-XS: Rethinking the Control of Text-to-Image Diffusion Models as
Feedback-Control Systems", 2023 (arXiv:2312.06573); names as vislearn/ControlNet-XS, `TwoStreamControlNet`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import SpatialTransformer
from .blocks import Downsample, ResBlock, TimestepEmbedSequential, embedding_mlp, timestep_embedding
from .config import hint_widths
from .controlnet import hint_layers
from .operations import Operations

_GROUPS = 32
_HEAD = 64
_BLOCK = re.compile(r"control_model\.(input_blocks\.\d+|middle_block)\.(\d+)\.(.+)")
_TRANSFORMER = re.compile(r"transformer_blocks\.(\d+)\.")


@dataclass(frozen=True)
class XSBlock:
    """One input block, or the middle one. inputs, outputs: of its first layer. depth: of its transformer, 0 without.

    halves: it makes the features smaller.
    """

    inputs: int
    outputs: int
    depth: int = 0
    halves: bool = False


@dataclass(frozen=True)
class XSConfig:
    """Sizes of `ControlNetXS`, read from its weights.

    base: channels of the U-Net's input blocks. trunk: of what its output blocks get from below. channels: of the
    control's own input blocks. embedding: of the timesteps. heads: stated, by width; else they follow from the widths.
    diffusers: norms are as in diffusers' version, whose small numbers and groups differ a little from vislearn's.
    """

    base: tuple[int, ...]
    trunk: tuple[int, ...]
    channels: tuple[int, ...]
    blocks: tuple[XSBlock, ...]
    middle: XSBlock
    in_channels: int
    hint_channels: int
    hint_widths: tuple[int, ...]
    embedding: int
    context_dim: int
    use_linear: bool
    learns_time: bool
    diffusers: bool = False
    stated_heads: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor], diffusers: bool = False) -> XSConfig:
        """Raises KeyError with the key without which the sizes are unknown."""

        def shape(key: str) -> tuple[int, ...]:
            return tuple(weights[key].shape)

        depths, halving, count = _structure(weights)
        outs = [shape(f"enc_zero_convs_out.{index}.0.weight") for index in range(count)]
        first = "control_model.input_blocks.{}.0." + "in_layers.2.weight"
        blocks: list[XSBlock] = []
        for index in range(1, count):
            halves = f"input_blocks.{index}" in halving
            key = f"control_model.input_blocks.{index}.0.op.weight" if halves else first.format(index)
            size = shape(key)
            blocks.append(XSBlock(size[1], size[0], depths.get(f"input_blocks.{index}", 0), halves))
        middle = shape("control_model.middle_block.0.in_layers.2.weight")
        context, linear = _attention(weights)
        return cls(
            base=tuple(size[0] for size in outs),
            trunk=tuple(shape(f"dec_zero_convs_out.{index}.0.weight")[0] for index in range(count)),
            channels=tuple(size[1] for size in outs),
            blocks=tuple(blocks),
            middle=XSBlock(middle[1], middle[0], depths.get("middle_block", 0)),
            in_channels=shape("control_model.input_blocks.0.0.weight")[1],
            hint_channels=shape("input_hint_block.0.weight")[1],
            hint_widths=hint_widths(weights),
            embedding=shape("control_model.input_blocks.1.0.emb_layers.1.weight")[1],
            context_dim=context,
            use_linear=linear,
            learns_time=any(key.startswith("control_model.time_embed.") for key in weights),
            diffusers=diffusers,
        )

    def heads(self, channels: int) -> int:
        """Attention heads at a width: 8 as in SD 1.x, or of 64 channels at most as in SD 2.x and SDXL."""
        stated = dict(self.stated_heads)
        if channels in stated:
            return stated[channels]
        return channels // divisor(channels, _HEAD) if self.use_linear or self.context_dim >= 1024 else 8


def divisor(number: int, most: int) -> int:
    """The largest divisor that is not above `most`."""
    return next(each for each in range(min(number, most), 0, -1) if number % each == 0)


def _structure(weights: Mapping[str, Tensor]) -> tuple[dict[str, int], set[str], int]:
    """Depth of each block's transformer, the blocks that halve, and how many input blocks there are."""
    depths: dict[str, int] = {}
    halving: set[str] = set()
    count = 1
    for key in weights:
        if not (match := _BLOCK.match(key)):
            continue
        block, layer, rest = match.groups()
        if block != "middle_block":
            count = max(count, int(block.partition(".")[2]) + 1)
        if layer == "0" and rest.startswith("op."):
            halving.add(block)
        if layer == "1" and (inner := _TRANSFORMER.match(rest)):
            depths[block] = max(depths.get(block, 0), int(inner[1]) + 1)
    return depths, halving, count


def _attention(weights: Mapping[str, Tensor]) -> tuple[int, bool]:
    """Width of the text, and whether projections are matrices: of the middle, which always has a transformer."""
    block = "control_model.middle_block.1"
    context = weights[f"{block}.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    return int(context), weights[f"{block}.proj_in.weight"].dim() == 2


class ControlBranch(nn.Module):
    """`time_embed` where it has one of its own, `input_blocks` and `middle_block`."""

    def __init__(self, config: XSConfig, ops: Operations) -> None:
        super().__init__()
        self._config = config
        if config.learns_time:
            self.time_embed = embedding_mlp(config.embedding // 4, config.embedding, ops)
        stem = ops.conv(config.in_channels, config.channels[0], 3)
        self.input_blocks = nn.ModuleList([TimestepEmbedSequential(stem), *self._blocks(ops)])
        middle = config.middle
        # diffusers: one number of groups for all norms of the middle, and its transformers' default eps.
        shared = divisor(math.gcd(middle.inputs, middle.outputs), _GROUPS)
        groups = (shared, shared) if config.diffusers else self._groups(middle)
        again, eps = groups[1], 1e-6 if config.diffusers else 1e-5
        self.middle_block = TimestepEmbedSequential(
            ResBlock(middle.inputs, config.embedding, middle.outputs, groups, ops, eps),
            self._transformer(middle, groups[1], ops),
            ResBlock(middle.outputs, config.embedding, middle.outputs, again, ops, eps),
        )

    def _blocks(self, ops: Operations) -> list[TimestepEmbedSequential]:
        blocks: list[TimestepEmbedSequential] = []
        most = 0
        for sizes in self._config.blocks:
            if sizes.halves:
                blocks.append(TimestepEmbedSequential(Downsample(sizes.inputs, ops, sizes.outputs)))
                most = 0
                continue
            # diffusers: no norm of a level has more groups than the level's first.
            most = most or (divisor(sizes.inputs, _GROUPS) if self._config.diffusers else _GROUPS)
            groups = self._groups(sizes, most)
            layers: list[nn.Module] = [
                ResBlock(sizes.inputs, self._config.embedding, sizes.outputs, groups, ops),
            ]
            if sizes.depth:
                layers.append(self._transformer(sizes, groups[1], ops))
            blocks.append(TimestepEmbedSequential(*layers))
        return blocks

    def _groups(self, sizes: XSBlock, most: int = _GROUPS) -> tuple[int, int]:
        return divisor(sizes.inputs, most), divisor(sizes.outputs, most)

    def _transformer(self, sizes: XSBlock, groups: int, ops: Operations) -> SpatialTransformer:
        config, width = self._config, sizes.outputs
        eps = 1e-6 if config.diffusers else 1e-5
        heads = config.heads(width)
        return SpatialTransformer(width, config.context_dim, heads, sizes.depth, config.use_linear, groups, ops, eps)


class ControlNetXS(nn.Module):
    """Keys as vislearn's `TwoStreamControlNet`, without the base. It is asked block by block, as the U-Net computes.

    scales: vislearn's `scale_list`, a factor for each connection to the base; 1 where there is none.
    """

    def __init__(self, config: XSConfig, operations: Operations | None = None, scales: tuple[float, ...] = ()) -> None:
        super().__init__()
        ops = operations or Operations()
        self.config = config
        count = len(config.base)
        self._scales = scales or (1.0,) * (2 * count + 1)
        self.control_model = ControlBranch(config, ops)

        def connection(inputs: int, outputs: int) -> TimestepEmbedSequential:
            return TimestepEmbedSequential(ops.zeroed(ops.conv(inputs, outputs, 1)))

        pairs = zip(config.channels, config.base, strict=True)
        self.enc_zero_convs_out = nn.ModuleList(connection(own, base) for own, base in pairs)
        self.enc_zero_convs_in = nn.ModuleList(connection(base, base) for base in config.base)
        self.middle_block_out = connection(config.middle.outputs, config.base[-1])
        to_decoder = zip(reversed(config.channels), config.trunk, strict=True)
        self.dec_zero_convs_out = nn.ModuleList(connection(own, base) for own, base in to_decoder)
        self.input_hint_block = TimestepEmbedSequential(
            *hint_layers(config.hint_channels, config.hint_widths, config.channels[0], ops)
        )

    @property
    def dtype(self) -> torch.dtype:
        """dtype in which the network computes."""
        return next(self.parameters()).dtype

    def encode_hint(self, hint: Tensor) -> Tensor:
        """Features (n, C, H/8, W/8) of a hint (n, hint_channels, H, W) in 0..1; once a pass is enough."""
        h = hint.to(self.dtype)
        for layer in self.input_hint_block:
            h = layer(h)
        return h

    def embed(self, timesteps: Tensor) -> Tensor:
        """(B, E) of timesteps (B,); only where `learns_time`."""
        sinusoids = timestep_embedding(timesteps, self.config.embedding // 4)
        return self.control_model.time_embed(sinusoids.to(self.dtype))

    def start(self, x: Tensor, features: Tensor) -> Tensor:
        """Its first features (B, C, h, w), of the latent (B, 4, h, w) and the hint's features."""
        return self.control_model.input_blocks[0](x, None) + features

    def block(self, index: int, h: Tensor, base: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """Its features after input block `index` from 1, of those before it and the U-Net's before it."""
        joined = torch.cat([h, self.enc_zero_convs_in[index - 1](base, emb)], dim=1)
        return self.control_model.input_blocks[index](joined, emb, context)

    def middle(self, h: Tensor, base: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """Its features after the middle block, of both before it."""
        joined = torch.cat([h, self.enc_zero_convs_in[-1](base, emb)], dim=1)
        return self.control_model.middle_block(joined, emb, context)

    def for_encoder(self, index: int, h: Tensor) -> Tensor:
        """What is added to the output of the U-Net's input block `index`, for its own features after that block."""
        return self._scaled(self.enc_zero_convs_out[index], h, index)

    def for_middle(self, h: Tensor) -> Tensor:
        """What is added to the output of the U-Net's middle block."""
        return self._scaled(self.middle_block_out, h, len(self.config.base))

    def for_decoder(self, index: int, h: Tensor) -> Tensor:
        """What is added to the trunk before the U-Net's output block `index`, for the features of the same skip."""
        return self._scaled(self.dec_zero_convs_out[index], h, len(self.config.base) + 1 + index)

    def _scaled(self, connection: Callable[..., Tensor], h: Tensor, place: int) -> Tensor:
        output = connection(h, None)
        return output if self._scales[place] == 1.0 else output * self._scales[place]
