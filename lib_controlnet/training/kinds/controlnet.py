"""ControlNet: a copy of the U-Net's encoder, joined to it by zero convolutions (Zhang et al., arXiv:2302.05543)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ...families.base import describe_config
from ...loading.lazy import outlines
from ...nets.config import ControlNetConfig
from ...nets.controlnet import ControlNet, trainable_copy
from ...nets.unet import UNetModel
from ..chance import generator_of
from ..config import TrainConfig
from ..export import export_diffusers, write_weights
from .base import Control, Writer, load_into, other_kind, started
from .residuals import ResidualControl

_HINT_STREAM = 2


class ControlNetKind:
    id = "controlnet"
    modelspec = "controlnet"
    latent_hints = False

    @property
    def formats(self) -> Mapping[str, Writer]:
        return {"v1.1": write_file, "diffusers": _write_diffusers}

    def new(self, unet: UNetModel, config: TrainConfig) -> Control:
        """The base's encoder, or the file `base.start` in any of a ControlNet's formats."""
        return ResidualControl(fresh_or_started(unet, config), config.train.only_mid_control)


KIND = ControlNetKind()


def fresh_or_started(unet: UNetModel, config: TrainConfig) -> ControlNet:
    """A whole ControlNet of this U-Net's sizes."""
    weights = started(config, unet)
    if weights is None:
        return fresh(unet, config)
    if "input_hint_block.0.weight" not in weights or "zero_convs.0.0.weight" not in weights:
        raise other_kind(config, "no ControlNet", "a ControlNet of this base's kind")
    sizes = ControlNetConfig.from_weights(outlines(weights))
    if sizes.unet.input_channels != unet.config.input_channels:
        found = f"{describe_config(sizes.unet)} instead of {describe_config(unet.config)}"
        raise other_kind(config, found, "a ControlNet of this base's kind")
    net = ControlNet(sizes)
    load_into(net, weights, config)
    return net


def fresh(unet: UNetModel, config: TrainConfig) -> ControlNet:
    """The base's encoder, beside zero convolutions and a hint encoder drawn anew."""
    control = trainable_copy(unet, hint_widths=config.base.hint_widths)
    if config.base.hint_init == "he":
        scale_hint_encoder(control, generator_of(config.train.seed, _HINT_STREAM))
    return control


def write_file(control: Control, path: Path, metadata: Mapping[str, str]) -> Mapping[str, Path]:
    """One safetensors file in half precision, as released ones are."""
    file = path.with_name(f"{path.name}.safetensors")
    write_weights(control.weights(), file, metadata)
    return {"model": file}


def _write_diffusers(control: Control, path: Path, metadata: Mapping[str, str]) -> Mapping[str, Path]:
    del metadata  # diffusers' folders have no place for it
    folder = path.with_name(f"{path.name}_diffusers")
    export_diffusers(control.net, folder)
    return {"diffusers": folder}


@torch.no_grad()
def scale_hint_encoder(control: ControlNet, generator: torch.Generator) -> None:
    """He initialisation of all but the last, zero convolution of the hint encoder.

    PyTorch's default shrinks the signal at every layer; after eight of them a line drawing has all but vanished.
    """
    convolutions = [layer for layer in control.input_hint_block if isinstance(layer, nn.Conv2d)]
    for convolution in convolutions[:-1]:
        if not convolution.weight.is_meta:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
            if convolution.bias is not None:
                convolution.bias.zero_()
