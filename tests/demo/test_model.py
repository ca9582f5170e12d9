"""The shipped model: read by independent code, of the promised size, following its maps and prompts on held-out
pairs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file

from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.training.export import file_sha256
from standalone.demo.checkpoint import CHECKPOINT, FOLDER, UNET, load
from standalone.demo.controls import TYPES
from standalone.demo.evaluate import Bench, figures
from standalone.demo.networks import new_autoencoder

PAIRS = 4
KINDS = {"t2iadapter_canny": "t2i_adapter", "lllite_canny": "lllite"}
"""Of the control models that are no ControlNets, by what their files are called."""


def control_file(kind: str) -> Path:
    return FOLDER / "controlnet" / f"demo_{kind}.safetensors"


@cache
def bench(kind: str) -> Bench:
    return Bench(CHECKPOINT, control_file(kind), kind.rpartition("_")[2], PAIRS, KINDS.get(kind, "controlnet"))


def test_vae_as_diffusers_reads_it() -> None:
    """diffusers' own converter, from our LDM names to the same numbers."""
    weights, model = load_file(str(CHECKPOINT)), load(CHECKPOINT)
    peer = new_autoencoder()
    own = peer.state_dict()
    converted = convert_ldm_vae_checkpoint(dict(weights), peer.config)
    peer.load_state_dict({key: value.float().reshape(own[key].shape) for key, value in converted.items()})
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latent = model.vae.encode(image).latent_dist.mean
        assert torch.equal(peer.eval().encode(image).latent_dist.mean, latent)
        assert torch.equal(peer.decode(latent).sample, model.vae.decode(latent).sample)


def test_unet_as_diffusers_reads_it() -> None:
    weights, model = load_file(str(CHECKPOINT)), load(CHECKPOINT)
    attention = ["CrossAttnDownBlock2D"] * 2
    peer = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(96, 96, 96),
        layers_per_block=1,
        norm_num_groups=32,
        cross_attention_dim=64,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", *attention),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )
    config = {**peer.config, "class_embed_type": None, "addition_embed_type": None}
    converted = convert_ldm_unet_checkpoint(dict(weights), config)
    peer.load_state_dict({key: value.float() for key, value in converted.items()})
    x, times, context = torch.randn(2, 4, 16, 16), torch.tensor([3, 800]), torch.randn(2, 77, 64)
    with torch.no_grad():
        assert torch.allclose(peer.eval()(x, times, context).sample, model.unet(x, times, context), atol=1e-5)


def test_config_is_read_from_the_weights() -> None:
    config = UNetConfig.from_weights(load_file(str(CHECKPOINT)), UNET)
    assert (config.model_channels, config.channel_mult, config.transformer_depth) == (96, (1, 1, 1), (0, 1, 1))
    assert (config.context_dim, config.num_heads) == (64, 8)


@pytest.mark.parametrize("kind", TYPES)
def test_controls_fit_the_checkpoint(kind: str) -> None:
    path = control_file(kind)
    weights = load_file(str(path))
    wanted = UNetConfig.from_weights(load_file(str(CHECKPOINT)), UNET)
    assert ControlNetConfig.from_weights(weights).unet == wanted
    assert {str(value.dtype) for value in weights.values()} == {"torch.float16"}
    assert all(weights[key].any() for key in weights if key.startswith("zero_convs") and key.endswith("weight"))
    with safe_open(str(path), "pt") as stream:
        metadata = stream.metadata()
    assert metadata["controlnet.base_sha256"] == file_sha256(CHECKPOINT)
    assert metadata["controlnet.type"] == kind
    assert json.loads(metadata["controlnet.recipe"])["empty_prompts"] == 0.5


def test_files_are_small() -> None:
    files = [CHECKPOINT, *(control_file(kind) for kind in TYPES)]
    assert sum(path.stat().st_size for path in files) < 36e6  # 6.3 MB of them are zeros, which git packs away
    rows = load_file(str(CHECKPOINT))["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"]
    assert rows.any(1).sum() < 100


def test_unknown_words_change_little() -> None:
    """A prompt with words the model never saw keeps its colours."""
    model = bench("canny")
    with torch.no_grad():
        known = model.context(["a red heart on a gray background"])
        other = model.context(["a red heart on a gray background"])
        strange = model.context(["a red heart on a gray background, trending, by an unheard painter"])
        blue = model.context(["a blue heart on a gray background"])
    assert torch.equal(known, other)
    last = slice(40, 77)  # the padding, which carries the summary
    assert (strange - known)[:, last].square().mean() < 0.5 * (blue - known)[:, last].square().mean()


@pytest.mark.parametrize("kind", [*TYPES, *KINDS])
def test_control_is_followed_and_prompt_is_obeyed(kind: str) -> None:
    """Four held-out pairs: far better than without, and ranked by weight. The full figures are in the model card."""
    model = bench(kind)
    scores = {weight: figures(model.images(weight, 0.0, 1.0, 4.0), model.truth) for weight in (0.0, 1.0)}
    assert scores[1.0].edge_f1 > 0.6
    assert scores[1.0].edge_f1 > 2 * scores[0.0].edge_f1
    assert scores[1.0].both_right >= 0.75


def test_weights_and_ranges_rank() -> None:
    model = bench("canny")
    cases = {"0": (0.0, 0.0, 1.0), "0.5": (0.5, 0.0, 1.0), "1": (1.0, 0.0, 1.0), "0-0.3": (1.0, 0.0, 0.3)}
    f1 = {name: figures(model.images(*case, 4.0), model.truth).edge_f1 for name, case in cases.items()}
    assert f1["0"] < f1["0.5"] < f1["1"]
    assert f1["0"] < f1["0-0.3"] < f1["1"]


def test_weight_zero_is_no_control_bit_for_bit() -> None:
    """Weight 0 with one map and with another: the same pictures; weight 1: others."""
    model = bench("canny")
    none = model.images(0.0, 0.0, 1.0, 4.0)
    model.maps = model.maps[::-1]
    try:
        assert all(np.array_equal(a, b) for a, b in zip(none, model.images(0.0, 0.0, 1.0, 4.0), strict=True))
        assert any(not np.array_equal(a, b) for a, b in zip(none, model.images(1.0, 0.0, 1.0, 4.0), strict=True))
    finally:
        model.maps = model.maps[::-1]


def test_control_weights_are_finite() -> None:
    for kind in TYPES:
        assert all(torch.isfinite(value).all() for value in bench(kind).control.net.state_dict().values())
