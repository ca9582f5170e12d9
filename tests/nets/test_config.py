"""Sizes read back from weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lib_controlnet.core.errors import ModelFileError
from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.unet import UNetModel

from .sizes import SD1, SD2, SDXL

REAL_SD15 = replace(SD1, model_channels=320, context_dim=768)
REAL_SD21 = replace(SD2, model_channels=320, channel_mult=(1, 2, 4, 4))
REAL_SDXL = replace(SDXL, model_channels=320, context_dim=2048, adm_channels=2816)


def _weights(network: type[UNetModel] | type[ControlNet], config: UNetConfig) -> dict[str, Tensor]:
    """Weights of real sizes cost nothing on the meta device."""
    with torch.device("meta"):
        built = UNetModel(config) if network is UNetModel else ControlNet(ControlNetConfig(config))
    return built.state_dict()


@pytest.mark.parametrize(
    "config",
    [
        REAL_SD15,
        REAL_SD21,
        REAL_SDXL,
        replace(REAL_SD15, in_channels=9),
        replace(REAL_SDXL, transformer_depth=(0, 0, 1), middle_depth=1),
        replace(REAL_SDXL, transformer_depth=(0, 0, 0), middle_depth=0, context_dim=0),
        replace(SD1, middle_depth=-1),
    ],
    ids=["SD1.5", "SD2.1", "SDXL", "inpainting", "SDXL mid", "SDXL small", "no middle attention"],
)
def test_a_networks_sizes_are_read_back(config: UNetConfig) -> None:
    unet = {f"model.diffusion_model.{key}": value for key, value in _weights(UNetModel, config).items()}
    assert UNetConfig.from_weights(unet, "model.diffusion_model.") == config
    control = ControlNetConfig.from_weights(_weights(ControlNet, config))
    assert control == ControlNetConfig(replace(config, out_channels=config.in_channels))


def test_every_width_and_depth_is_read_back(unet_config: UNetConfig) -> None:
    assert UNetConfig.from_weights(_weights(UNetModel, unet_config)) == unet_config


def test_hint_sizes_are_read_back() -> None:
    with torch.device("meta"):
        net = ControlNet(ControlNetConfig(SD1, hint_channels=6, hint_widths=(8, 16, 32)))
    config = ControlNetConfig.from_weights(net.state_dict())
    assert (config.hint_channels, config.hint_widths) == (6, (8, 16, 32))


def test_real_parameter_counts() -> None:
    """Published sizes: U-Nets of 859.5 M, 865.9 M, 2567.5 M; ControlNets of 361.3 M, 364.2 M, 1251.0 M."""

    def millions(weights: dict[str, Tensor]) -> float:
        return round(sum(weight.numel() for weight in weights.values()) / 1e6, 1)

    counts = [
        (millions(_weights(UNetModel, c)), millions(_weights(ControlNet, c))) for c in (REAL_SD15, REAL_SD21, REAL_SDXL)
    ]
    assert counts == [(859.5, 361.3), (865.9, 364.2), (2567.5, 1251.0)]


@pytest.mark.parametrize(
    ("config", "heads"),
    [(REAL_SD15, [8, 8, 8]), (REAL_SD21, [5, 10, 20]), (REAL_SDXL, [5, 10, 20])],
    ids=["SD1.5", "SD2.1", "SDXL"],
)
def test_heads_follow_the_kind_of_model(config: UNetConfig, heads: list[int]) -> None:
    read = UNetConfig.from_weights(_weights(UNetModel, config))
    assert [read.heads(width) for width in (320, 640, 1280)] == heads


def test_sd2_with_projections_rewritten_as_convolutions_keeps_its_heads() -> None:
    weights = _weights(UNetModel, REAL_SD21)
    rewritten = {
        key: value[:, :, None, None] if key.endswith(("proj_in.weight", "proj_out.weight")) else value
        for key, value in weights.items()
    }
    config = UNetConfig.from_weights(rewritten)
    assert config == replace(REAL_SD21, use_linear=False)


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("input_blocks.0.0.weight", "there is no input_blocks.0.0.weight"),
        ("middle_block.0.in_layers.2.weight", "there is no middle_block.0.in_layers.2.weight"),
        ("input_blocks.4.0.in_layers.2.weight", "irregular input_blocks"),
    ],
)
def test_incomplete_weights_are_refused_with_what_is_missing(gone: str, named: str) -> None:
    weights = _weights(UNetModel, SD1)
    del weights[gone]
    with pytest.raises(ModelFileError, match=named):
        UNetConfig.from_weights(weights)


def test_weights_without_a_hint_encoder_are_no_controlnet() -> None:
    with pytest.raises(ModelFileError, match=r"there is no input_hint_block\.0\.weight"):
        ControlNetConfig.from_weights(_weights(UNetModel, SD1))
