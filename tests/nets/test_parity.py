"""The networks against diffusers, at real layer counts."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

from lib_controlnet.nets.blocks import timestep_embedding
from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.unet import UNetModel

from .ldm_oracle import diffusers_controlnet, diffusers_unet, example, for_diffusers, randomise, with_sizes
from .sizes import SD1, SDXL

TOLERANCE = 1e-4


@cache
def _controlnet(config: UNetConfig) -> ControlNet:
    net = ControlNet(ControlNetConfig(config, hint_widths=(8, 16, 24, 32)))
    randomise(net, seed=1)
    return net


@cache
def _unet(config: UNetConfig) -> UNetModel:
    unet = UNetModel(config)
    randomise(unet, seed=2)
    return unet


def _hint(rows: int) -> Tensor:
    return torch.rand(rows, 3, 128, 128, generator=torch.Generator().manual_seed(5)) * 2 - 1


def _error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05, "the oracle's output must not be flat"
    return (ours - theirs).abs().max().item()


def controlled(unet: UNetModel, inputs: dict[str, Tensor], residuals: tuple[Tensor, ...]) -> Tensor:
    """cldm's ControlledUnetModel.forward, literally: the middle's residual, then one for each skip, last first."""
    left = list(residuals)
    emb = unet.embed(inputs["timesteps"], inputs.get("y"))
    h, skips = inputs["x"], []
    for block in unet.input_blocks:
        h = block(h, emb, inputs["context"])
        skips.append(h)
    h = unet.middle_block(h, emb, inputs["context"]) + left.pop()
    for block in unet.output_blocks:
        h = block(torch.cat([h, skips.pop() + left.pop()], dim=1), emb, inputs["context"])
    return unet.out(h)


def test_unet_equals_diffusers(unet_config: UNetConfig) -> None:
    unet = _unet(unet_config)
    inputs = with_sizes(example(unet_config))
    oracle = diffusers_unet(unet_config, unet.state_dict())
    assert _error(unet(**inputs), oracle(**for_diffusers(inputs)).sample) <= TOLERANCE


@pytest.mark.parametrize("hint_rows", [1, 2])
def test_residuals_and_controlled_unet_equal_diffusers(unet_config: UNetConfig, hint_rows: int) -> None:
    net, unet = _controlnet(unet_config), _unet(unet_config)
    inputs = with_sizes(example(unet_config))
    hint = _hint(hint_rows)

    residuals = net(inputs["x"], net.encode_hint(hint), *list(inputs.values())[1:])
    down, middle = diffusers_controlnet(net.control_config, net.state_dict())(
        **for_diffusers(inputs), controlnet_cond=hint.expand(2, -1, -1, -1), return_dict=False
    )
    assert len(residuals) == len(unet_config.input_channels) + 1
    assert tuple(r.shape[1] for r in residuals[:-1]) == unet_config.input_channels
    assert max(_error(a, b) for a, b in zip(residuals, [*down, middle], strict=True)) <= TOLERANCE

    oracle = diffusers_unet(unet_config, unet.state_dict())
    expected = oracle(
        **for_diffusers(inputs), down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
    assert _error(controlled(unet, inputs, residuals), expected) <= TOLERANCE
    assert (expected - oracle(**for_diffusers(inputs)).sample).abs().max() > 0.01


@pytest.mark.parametrize("depths", [((0, 0, 1), 1), ((0, 0, 0), 0)], ids=["mid", "small"])
def test_the_smaller_sdxl_controlnets_equal_diffusers(depths: tuple[tuple[int, ...], int]) -> None:
    config = UNetConfig(4, 4, 32, (1, 2, 4), 2, depths[0], depths[1], 80 if depths[1] else 0, None, 64, True, 112)
    net = _controlnet(config)
    inputs = with_sizes(example(config))
    oracle = diffusers_controlnet(ControlNetConfig(config, hint_widths=(8, 16, 24, 32)), net.state_dict())
    down, middle = oracle(**for_diffusers(inputs), controlnet_cond=_hint(2), return_dict=False)
    residuals = net(inputs["x"], net.encode_hint(_hint(2)), *list(inputs.values())[1:])
    assert max(_error(a, b) for a, b in zip(residuals, [*down, middle], strict=True)) <= TOLERANCE


def test_feed_forward_in_parts_gives_the_same_numbers(unet_config: UNetConfig) -> None:
    """2048 rows of tokens, computed in parts unless gradients are wanted."""
    net = _controlnet(unet_config)
    inputs = with_sizes(example(unet_config, size=(32, 32)))
    features = net.encode_hint(torch.zeros(1, 3, 256, 256))
    with torch.no_grad():
        in_parts = net(inputs["x"], features, *list(inputs.values())[1:])
    whole = net(inputs["x"], features, *list(inputs.values())[1:])
    assert max((a - b).abs().max().item() for a, b in zip(in_parts, whole, strict=True)) <= 1e-5


@pytest.mark.parametrize("channels", [32, 320, 33])
def test_timestep_embedding_equals_diffusers_bit_for_bit(channels: int) -> None:
    timesteps = torch.tensor([0.0, 0.25, 1.0, 99.9, 500.5, 999.0])
    expected = get_timestep_embedding(timesteps, channels, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert torch.equal(timestep_embedding(timesteps, channels), expected)


def test_timestep_embedding_is_float32_whatever_comes_in() -> None:
    whole = torch.tensor([999, 3])
    assert torch.equal(timestep_embedding(whole, 64), timestep_embedding(whole.half(), 64))
    assert timestep_embedding(whole.half(), 64).dtype == torch.float32


def test_odd_sizes_are_resized_to_the_skip_as_a1111_does(unet_config: UNetConfig) -> None:
    unet = _unet(unet_config)
    inputs = example(unet_config, size=(9, 13))
    emb = unet.embed(inputs["timesteps"], inputs.get("y"))
    h, skips = inputs["x"], []
    for block in unet.input_blocks:
        h = block(h, emb, inputs["context"])
        skips.append(h)
    h = unet.middle_block(h, emb, inputs["context"])
    for block in unet.output_blocks:
        skip = skips.pop()
        h = block(torch.cat([F.interpolate(h, skip.shape[-2:], mode="nearest"), skip], 1), emb, inputs["context"])
    assert torch.equal(unet(**inputs), unet.out(h))


def test_hosts_keywords_have_no_effect(unet_config: UNetConfig) -> None:
    unet = _unet(unet_config)
    inputs = example(unet_config)
    assert torch.equal(unet(**inputs, transformer_options={"a": 1}, control=None), unet(**inputs))


def test_y_is_asked_for_and_refused() -> None:
    inputs = example(SDXL)
    with pytest.raises(ValueError, match="takes y of 112 channels, got None"):
        UNetModel(SDXL)(inputs["x"], inputs["timesteps"], inputs["context"])
    with pytest.raises(ValueError, match="takes no y"):
        UNetModel(SD1)(inputs["x"], inputs["timesteps"], torch.zeros(2, 7, 48), inputs["y"])
