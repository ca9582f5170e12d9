"""T2I-Adapter: a small network that turns a control image into features for the U-Net's encoder, once a pass.

Mou et al., "T2I-Adapter: Learning Adapters to Dig out More Controllable Ability for Text-to-Image Diffusion Models",
2023 (arXiv:2302.08453); layers and names as TencentARC/T2I-Adapter's `Adapter`, `Adapter_light` and, for SDXL,
`Adapter_XL`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ModelFileError
from .config import UNetConfig
from .operations import Operations

_FULL_STAGES = 4
"""Of all published full adapters. One whose blocks cannot be shared out so is for a U-Net of three levels."""
_UNSHUFFLE = {64: 8, 192: 8, 256: 16, 768: 16}
"""How many pixels a side go into one place, by the channels that the first convolution reads."""


@dataclass(frozen=True)
class BlockSizes:
    """One residual block: convolutions `block1` (3x3) and `block2`, after a halving and `in_conv` where there are such.

    kernel: of `block2`. entry, skip: kernel of `in_conv`, `skep`, 0 without one. strided: the halving has weights.
    """

    inputs: int
    channels: int
    kernel: int
    entry: int = 0
    skip: int = 0
    strided: bool = False


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of `T2IAdapter`, read from its weights.

    read: channels that the first convolution reads. unshuffle: pixels a side that go into one place, 8 or 16 (SDXL).
    blocks: those of each stage. channels: of each stage's features. light: stages squeeze their channels inside.
    """

    read: int
    unshuffle: int
    blocks: tuple[tuple[BlockSizes, ...], ...]
    channels: tuple[int, ...]
    light: bool

    @property
    def hint_channels(self) -> int:
        """1 for adapters of lines, 3 otherwise."""
        return self.read // self.unshuffle**2

    @property
    def halvings(self) -> tuple[bool, ...]:
        """The stages that begin by halving."""
        return (False, False, True, False) if self.unshuffle == 16 else (False, *[True] * (len(self.channels) - 1))

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> AdapterConfig:
        """Raises `ModelFileError` where the keys do not describe an adapter."""
        light = "conv_in.weight" not in weights
        read = weights["body.0.in_conv.weight" if light else "conv_in.weight"].shape[1]
        if read not in _UNSHUFFLE:
            raise ModelFileError(
                "the T2I-Adapter reads a control image of an unknown kind",
                field="model",
                found=f"{read} channels at its first convolution instead of one of {', '.join(map(str, _UNSHUFFLE))}",
                remedy="choose an adapter for SD 1.x or SDXL",
            )
        count = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("body."))
        if light:
            stages = [_light_blocks(weights, f"body.{stage}.") for stage in range(count)]
            channels = [weights[f"body.{stage}.out_conv.weight"].shape[0] for stage in range(count)]
        else:
            number = _FULL_STAGES if count % _FULL_STAGES == 0 else _FULL_STAGES - 1
            each = count // number
            numbers = [range(stage * each, (stage + 1) * each) for stage in range(number)]
            stages = [tuple(_block(weights, f"body.{number}.") for number in part) for part in numbers]
            channels = [blocks[-1].channels for blocks in stages]
        return cls(read, _UNSHUFFLE[read], tuple(stages), tuple(channels), light)


def _light_blocks(weights: Mapping[str, Tensor], stage: str) -> tuple[BlockSizes, ...]:
    count = sum(f"{stage}body.{index}.block1.weight" in weights for index in range(len(weights)))
    return tuple(_block(weights, f"{stage}body.{index}.") for index in range(count))


def _block(weights: Mapping[str, Tensor], prefix: str) -> BlockSizes:
    def kernel(name: str) -> int:
        weight = weights.get(f"{prefix}{name}.weight")
        return 0 if weight is None else int(weight.shape[-1])

    channels = weights[f"{prefix}block1.weight"].shape[1]
    inputs = weights[f"{prefix}in_conv.weight"].shape[1] if kernel("in_conv") else channels
    strided = bool(kernel("down_opt.op"))
    return BlockSizes(inputs, channels, kernel("block2"), kernel("in_conv"), kernel("skep"), strided)


class ResidualBlock(nn.Module):
    """(B, inputs, h, w) -> (B, channels, h, w), or half of it."""

    def __init__(self, sizes: BlockSizes, halves: bool, ops: Operations) -> None:
        super().__init__()
        if sizes.strided:
            self.down_opt = Halving(sizes.inputs, ops)
        self.pools = halves and not sizes.strided
        self.in_conv = ops.conv(sizes.inputs, sizes.channels, sizes.entry) if sizes.entry else None
        self.block1 = ops.conv(sizes.channels, sizes.channels, 3)
        self.block2 = ops.conv(sizes.channels, sizes.channels, sizes.kernel)
        self.skep = ops.conv(sizes.channels, sizes.channels, sizes.skip) if sizes.skip else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pools:
            x = halved(x)
        elif hasattr(self, "down_opt"):
            x = self.down_opt(x)
        if self.in_conv is not None:
            x = self.in_conv(x)
        h = self.block2(F.relu(self.block1(x)))
        return h + (x if self.skep is None else self.skep(x))


class Halving(nn.Module):
    """A strided convolution in place of the pool."""

    def __init__(self, channels: int, ops: Operations) -> None:
        super().__init__()
        self.op = ops.conv(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class LightStage(nn.Module):
    """(B, inputs, h, w) -> (B, outputs, h, w): blocks between two 1x1 convolutions."""

    def __init__(self, inputs: int, blocks: Sequence[BlockSizes], outputs: int, pools: bool, ops: Operations) -> None:
        super().__init__()
        self.pools = pools
        self.in_conv = ops.conv(inputs, blocks[0].inputs, 1)
        self.body = nn.Sequential(*(ResidualBlock(sizes, False, ops) for sizes in blocks))
        self.out_conv = ops.conv(blocks[-1].channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_conv(self.body(self.in_conv(halved(x) if self.pools else x)))


def adapter_places(unet: UNetConfig, unshuffle: int) -> tuple[int, ...]:
    """The blocks, counted through encoder and middle, to whose output features are added: four in the U-Nets for which
    there are published adapters.

    The last of each level before it is halved. Adapters with an unshuffle of 16 (SDXL) begin at half of the size: with
    what halves the first level, and end with the middle.
    """
    each, levels = unet.num_res_blocks + 1, len(unet.channel_mult)
    last = [each * level + unet.num_res_blocks for level in range(levels)]
    if unshuffle == 16:
        return (each, *last[1:], last[-1] + 1)
    return tuple(last)


def halved(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, ceil(h / 2), ceil(w / 2)), as the U-Net halves odd sizes too."""
    return F.avg_pool2d(x, 2, ceil_mode=True)


class T2IAdapter(nn.Module):
    """Keys as TencentARC's, without a prefix."""

    def __init__(self, config: AdapterConfig, operations: Operations | None = None) -> None:
        super().__init__()
        ops = operations or Operations()
        self.config = config
        widths = (config.read, *config.channels)
        if config.light:
            self.body = nn.ModuleList(
                LightStage(widths[index], blocks, config.channels[index], pools, ops)
                for index, (blocks, pools) in enumerate(zip(config.blocks, config.halvings, strict=True))
            )
            return
        self.conv_in = ops.conv(config.read, config.blocks[0][0].inputs, 3)
        self.body = nn.ModuleList(
            ResidualBlock(sizes, halves and index == 0, ops)
            for blocks, halves in zip(config.blocks, config.halvings, strict=True)
            for index, sizes in enumerate(blocks)
        )

    def forward(self, hint: Tensor) -> tuple[Tensor, ...]:
        """Features (B, C_i, h_i, w_i), one a stage, of `hint` (B, 1 or 3, H, W) in 0..1, whole `unshuffle`s a side.

        SD: at 1/8, 1/16, 1/32, 1/64 of the hint, of which a U-Net of three levels has no last.
        SDXL: at 1/16, 1/16, 1/32, 1/32.
        """
        x = F.pixel_unshuffle(hint, self.config.unshuffle)
        if not self.config.light:
            x = self.conv_in(x)
        each = len(self.body) // len(self.config.channels)
        features: list[Tensor] = []
        for number, block in enumerate(self.body, start=1):
            x = block(x)
            if number % each == 0:
                features.append(x)
        return tuple(features)
