"""ControlNet-XS (Zavadski et al., arXiv:2312.06573): a narrow encoder that takes turns with the U-Net's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...loading.lazy import outlines
from ...loading.xs import xs_names
from ...nets.blocks import TimestepEmbedSequential
from ...nets.config import UNetConfig
from ...nets.controlnet_xs import ControlNetXS, XSBlock, XSConfig
from ...nets.unet import UNetModel
from ..config import TrainConfig
from ..errors import TrainingError
from ..export import write_folder, write_weights
from .base import Control, Writer, beside, load_into, other_kind, started
from .weaving import Weave, woven_forward

_UNIT, _LAYERS = 8, 2
"""Widths are multiples of the first, so that SD 1.x's eight heads divide them. The other is how many residual blocks a
level has in all U-Nets that diffusers has an adapter for."""


class XSKind:
    id = "controlnet_xs"
    modelspec = "controlnet-xs"
    latent_hints = False

    @property
    def formats(self) -> Mapping[str, Writer]:
        return {"v1.1": _write_file, "diffusers": _write_diffusers}

    def new(self, unet: UNetModel, config: TrainConfig) -> Control:
        """An encoder of `control.ratio` of the U-Net's width, or that of the file `base.start`."""
        weights = started(config, unet)
        if weights is None:
            sizes = xs_config(unet.config, config.control.ratio, config.base.hint_widths)
            with beside(unet):
                return XSControl(ControlNetXS(sizes), unet.config)
        if "enc_zero_convs_out.0.0.weight" not in weights:
            raise other_kind(config, "no ControlNet-XS", "one")
        sizes = XSConfig.from_weights(outlines(weights), diffusers=unet.config.num_res_blocks == _LAYERS)
        if sizes.base != unet.config.input_channels or sizes.learns_time:
            raise other_kind(config, f"widths {sizes.base} of its U-Net" if not sizes.learns_time else
                             "an embedding of timesteps of its own", "one of this base's kind without one")  # fmt: skip
        net = ControlNetXS(sizes)
        load_into(net, weights, config)
        return XSControl(net, unet.config)


KIND = XSKind()


def xs_config(unet: UNetConfig, ratio: float, hint_widths: tuple[int, ...]) -> XSConfig:
    """Sizes as diffusers' `ControlNetXSAdapter.from_unet` gives them, without an embedding of timesteps of its own;
    vislearn's norms where the U-Net is no released one."""
    own = [max(_UNIT, round(unet.model_channels * mult * ratio / _UNIT) * _UNIT) for mult in unet.channel_mult]
    base, channels, blocks = unet.input_channels, [own[0]], list[XSBlock]()
    for level, width in enumerate(own):
        for _ in range(unet.num_res_blocks):
            blocks.append(XSBlock(channels[-1] + base[len(blocks)], width, unet.transformer_depth[level]))
            channels.append(width)
        if level + 1 < len(own):
            blocks.append(XSBlock(width + base[len(blocks)], width, halves=True))
            channels.append(width)
    outputs = [
        unet.model_channels * mult for mult in reversed(unet.channel_mult) for _ in range(unet.num_res_blocks + 1)
    ]
    return XSConfig(
        base=base, trunk=(unet.middle_channels, *outputs[:-1]), channels=tuple(channels), blocks=tuple(blocks),
        middle=XSBlock(channels[-1] + base[-1], channels[-1], unet.middle_depth), in_channels=unet.in_channels,
        hint_channels=3, hint_widths=hint_widths, embedding=4 * unet.model_channels, context_dim=unet.context_dim,
        use_linear=unet.use_linear, learns_time=False,
        diffusers=unet.num_res_blocks == _LAYERS,
    )  # fmt: skip


class XSControl(Control):
    """`net` computes between the U-Net's blocks, each seeing the other's."""

    def __init__(self, net: ControlNetXS, unet: UNetConfig) -> None:
        super().__init__(net)
        self.unet = unet

    def encode(self, hints: Tensor) -> Tensor:
        return self.net.encode_hint(hints)

    def predict(
        self, unet: UNetModel, x: Tensor, timesteps: Tensor, context: Tensor, features: Tensor, y: Tensor | None = None,
        weight: float = 1.0,
    ) -> Tensor:  # fmt: skip
        return woven_forward(unet, _Turns(self.net, features, weight), x, timesteps, context, y)

    def use_checkpointing(self) -> None:
        for module in self.net.control_model.modules():
            if isinstance(module, TimestepEmbedSequential):
                module.checkpointing = True


class _Turns(Weave):
    def __init__(self, net: ControlNetXS, features: Tensor, weight: float) -> None:
        self._net, self._features, self._weight = net, features, weight
        self._own: list[Tensor] = []

    def begin(self, x: Tensor, emb: Tensor, context: Tensor) -> None:
        dtype = self._net.dtype
        self._x, self._emb, self._context = x.to(dtype), emb.to(dtype), context.to(dtype)

    def entered(self, index: int, h: Tensor) -> None:
        if index == 0:
            self._own.append(self._net.start(self._x, self._features))
            return
        last = index == len(self._net.config.base)
        given = (self._own[-1], h.to(self._net.dtype), self._emb, self._context)
        self._own.append(self._net.middle(*given) if last else self._net.block(index, *given))

    def left(self, index: int, h: Tensor) -> Tensor:
        own = self._own[index]
        middle = index == len(self._net.config.base)
        return h + self._weight * (self._net.for_middle(own) if middle else self._net.for_encoder(index, own)).to(
            h.dtype
        )

    def trunk(self, index: int, h: Tensor) -> Tensor:
        own = self._own[len(self._net.config.base) - 1 - index]
        return h + self._weight * self._net.for_decoder(index, own).to(h.dtype)


def diffusers_xs(unet: UNetConfig, sizes: XSConfig) -> Any:
    """diffusers' network of these sizes, without content."""
    from diffusers.models.controlnets.controlnet_xs import ControlNetXSAdapter

    each = unet.num_res_blocks + 1
    own = [sizes.channels[min(level * each + 1, len(sizes.channels) - 1)] for level in range(len(unet.channel_mult))]
    arguments: dict[str, Any] = {
        "conditioning_embedding_out_channels": sizes.hint_widths,
        "num_attention_heads": [sizes.heads(width) for width in own],
        "block_out_channels": own,
        "base_block_out_channels": [unet.model_channels * mult for mult in unet.channel_mult],
        "cross_attention_dim": unet.context_dim,
        "down_block_types": tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in unet.transformer_depth),
        "transformer_layers_per_block": [*[max(d, 1) for d in unet.transformer_depth[:-1]], unet.middle_depth],
        "upcast_attention": False,
        "use_linear_projection": unet.use_linear,
    }
    with torch.device("meta"):
        return ControlNetXSAdapter(**arguments)


def _theirs(control: XSControl) -> tuple[Any, dict[str, str]]:
    """diffusers' network, and its names by ours."""
    model = diffusers_xs(control.unet, control.net.config)
    names = xs_names({key: key for key in model.state_dict()})
    assert names is not None
    return model, names


def _write_file(control: XSControl, path: Path, metadata: Mapping[str, str]) -> Mapping[str, Path]:
    """One file under diffusers' names where diffusers has such a network, else under vislearn's: by the names it is
    also known how the norms compute."""
    file, weights = path.with_name(f"{path.name}.safetensors"), control.weights()
    if control.net.config.diffusers:
        names = _theirs(control)[1]
        weights = {names[key]: value for key, value in weights.items()}
    write_weights(weights, file, metadata)
    return {"model": file}


def _write_diffusers(control: XSControl, path: Path, metadata: Mapping[str, str]) -> Mapping[str, Path]:
    """A folder for `ControlNetXSAdapter.from_pretrained`."""
    del metadata
    if not control.net.config.diffusers:
        raise TrainingError("diffusers has no ControlNet-XS for such a checkpoint", field="output.formats",
                            found="another number of residual blocks", remedy='use the format "v1.1"')  # fmt: skip
    folder = path.with_name(f"{path.name}_diffusers")
    write_folder(*_theirs(control), control.weights(), folder)
    return {"diffusers": folder}
