"""Sizes of a U-Net or ControlNet in LDM naming, read from the keys and shapes of its weights.

Nothing is guessed from file names. Two facts are not in the weights and follow rules: the number of attention
heads (`_heads`) and the group count of the norms (32 in LDM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ..core.errors import ModelFileError

_NO_TRANSFORMER = -1


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of `UNetModel`.

    `transformer_depth`: transformer blocks behind each residual block of a level, 0 = no attention there.
    `middle_depth`: the same for the middle; 0 is a projection without blocks (SDXL small ControlNets), -1 none at all.
    `num_heads` or `head_dim` is set, the other is None. `adm_channels`: width of `y` (SDXL 2816), None without it.
    """

    in_channels: int
    out_channels: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    transformer_depth: tuple[int, ...]
    middle_depth: int
    context_dim: int
    num_heads: int | None
    head_dim: int | None
    use_linear: bool
    adm_channels: int | None
    groups: int = 32

    @property
    def input_channels(self) -> tuple[int, ...]:
        """Channels of the output of each input block, which are those of the skips and the residuals."""
        channels = [self.model_channels]
        for level, mult in enumerate(self.channel_mult):
            channels += [mult * self.model_channels] * self.num_res_blocks
            if level + 1 < len(self.channel_mult):
                channels.append(mult * self.model_channels)
        return tuple(channels)

    @property
    def middle_channels(self) -> int:
        return self.channel_mult[-1] * self.model_channels

    def residual_numbers(self, height: int, width: int) -> int:
        """Numbers in the skips and the middle block's output of one row of a latent `height` x `width`."""
        scales = [2 ** (index // (self.num_res_blocks + 1)) for index in range(len(self.input_channels))]
        channels = zip((*self.input_channels, self.middle_channels), (*scales, scales[-1]), strict=True)
        return sum(count * -(-height // scale) * -(-width // scale) for count, scale in channels)

    def heads(self, channels: int) -> int:
        """Number of attention heads in a block of `channels`."""
        return self.num_heads if self.num_heads is not None else channels // (self.head_dim or 64)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor], prefix: str = "") -> UNetConfig:
        """Sizes of the U-Net (or of a ControlNet's copy of its encoder) under `prefix`.

        Raises `ModelFileError` where the keys do not describe such a network.
        """
        view = _View(weights, prefix)
        stem = view.shape("input_blocks.0.0.weight")
        levels = _levels(view)
        linear, context = _attention(view)
        num_heads, head_dim = _heads(linear, context)
        widths = [level[0].channels for level in levels]
        if any(width % stem[0] for width in widths):
            raise view.error(f"level widths {widths} are no multiples of the first width {stem[0]}")
        return cls(
            in_channels=stem[1],
            out_channels=view.shape("out.2.weight")[0] if view.has("out.2.weight") else 4,
            model_channels=stem[0],
            channel_mult=tuple(width // stem[0] for width in widths),
            num_res_blocks=len(levels[0]),
            transformer_depth=tuple(level[0].depth for level in levels),
            middle_depth=_middle_depth(view),
            context_dim=context,
            num_heads=num_heads,
            head_dim=head_dim,
            use_linear=linear,
            adm_channels=view.shape("label_emb.0.0.weight")[1] if view.has("label_emb.0.0.weight") else None,
        )


@dataclass(frozen=True)
class ControlNetConfig:
    """Sizes of `ControlNet`: the U-Net whose encoder it copies, and its hint encoder.

    `hint_channels`: channels of the control image. `hint_widths`: channels after each halving, (16, 32, 96, 256) in
    every released model; the hint comes out at 1 / 2**(len(hint_widths) - 1) of its size.
    """

    unet: UNetConfig
    hint_channels: int = 3
    hint_widths: tuple[int, ...] = (16, 32, 96, 256)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor], prefix: str = "") -> ControlNetConfig:
        """Raises `ModelFileError` where the keys do not describe a ControlNet."""
        view = _View(weights, prefix)
        widths = hint_widths(weights, prefix)
        if not widths:
            raise view.error("there is no input_hint_block.0.weight")
        unet = UNetConfig.from_weights(weights, prefix)
        hint = view.shape("input_hint_block.0.weight")
        return cls(unet=replace(unet, out_channels=unet.in_channels), hint_channels=hint[1], hint_widths=widths)


def hint_widths(weights: Mapping[str, Tensor], prefix: str = "") -> tuple[int, ...]:
    """Channels of a hint encoder after each halving; none where there is no encoder."""
    widths: list[int] = []
    while f"{prefix}input_hint_block.{4 * len(widths)}.weight" in weights:
        widths.append(weights[f"{prefix}input_hint_block.{4 * len(widths)}.weight"].shape[0])
    return tuple(widths)


@dataclass(frozen=True)
class _Block:
    channels: int
    depth: int


class _View:
    """Weights below a prefix, with errors that name the missing key."""

    def __init__(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        self._weights = weights
        self._prefix = prefix

    def has(self, key: str) -> bool:
        return self._prefix + key in self._weights

    def shape(self, key: str) -> tuple[int, ...]:
        if not self.has(key):
            raise self.error(f"there is no {key}")
        return tuple(self._weights[self._prefix + key].shape)

    def depth(self, block: str) -> int:
        """Transformer blocks of the spatial transformer called `block`; -1 where there is none."""
        if not self.has(f"{block}.proj_in.weight"):
            return _NO_TRANSFORMER
        count = 0
        while self.has(f"{block}.transformer_blocks.{count}.norm1.weight"):
            count += 1
        return count

    def error(self, found: str) -> ModelFileError:
        return ModelFileError(
            "the weights do not describe a Stable Diffusion U-Net or ControlNet",
            found=found,
            remedy="use a complete SD 1.x, SD 2.x or SDXL model file",
        )


def _levels(view: _View) -> list[list[_Block]]:
    """Residual blocks of each level, in encoder order."""
    levels: list[list[_Block]] = [[]]
    index = 1
    while True:
        block = f"input_blocks.{index}"
        if view.has(f"{block}.0.op.weight"):
            levels.append([])
        elif view.has(f"{block}.0.in_layers.2.weight"):
            channels = view.shape(f"{block}.0.in_layers.2.weight")[0]
            levels[-1].append(_Block(channels, max(view.depth(f"{block}.1"), 0)))
        else:
            break
        index += 1
    sizes = {len(level) for level in levels}
    if len(sizes) != 1 or sizes == {0} or any(len(set(level)) != 1 for level in levels):
        raise view.error(f"irregular input_blocks: {levels}")
    return levels


def _middle_depth(view: _View) -> int:
    if not view.has("middle_block.0.in_layers.2.weight"):
        raise view.error("there is no middle_block.0.in_layers.2.weight")
    return view.depth("middle_block.1")


def _attention(view: _View) -> tuple[bool, int]:
    """(projections are matrices, context width) of the first transformer found; (False, 0) without any."""
    linear, context = False, 0
    blocks = [f"input_blocks.{index}.1" for index in range(64)] + ["middle_block.1"]
    for block in blocks:
        if view.has(f"{block}.proj_in.weight"):
            linear = linear or len(view.shape(f"{block}.proj_in.weight")) == 2
        key = f"{block}.transformer_blocks.0.attn2.to_k.weight"
        if not context and view.has(key):
            context = view.shape(key)[1]
    return linear, context


def _heads(linear: bool, context: int) -> tuple[int | None, int | None]:
    """(num_heads, head_dim): SD1.x splits into 8 heads; SD2.x and SDXL into heads of 64 channels.

    They differ in the projections (SD2.x and SDXL: matrices) unless a tool has rewritten those as convolutions; then
    the context still tells (SD1.x 768; SD2.x 1024; SDXL 2048).
    """
    return (None, 64) if linear or context >= 1024 else (8, None)
