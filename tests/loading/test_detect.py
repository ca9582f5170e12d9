"""Kinds of models told from their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxControlNetModel, QwenImageControlNetModel, SD3ControlNetModel, T2IAdapter
from safetensors.torch import save_file

from lib_controlnet.core.errors import ModelFileError
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.families.base import Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.loading.canonical import canonical
from lib_controlnet.loading.detect import KINDS, KeyCondition, describe_kind, kind_of
from lib_controlnet.nets.config import ControlNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.unet import UNetModel
from tests.nets.ldm_oracle import diffusers_unet
from tests.nets.sizes import SD1

CONDITION = KeyCondition(all_of=("a.weight", "b.*.bias"), any_of=("x", "y"), none_of=("lora*",))


def test_a_condition_matches_when_nothing_is_missing() -> None:
    assert CONDITION.matches({"a.weight", "b.3.bias", "y"})
    assert CONDITION.missing({"a.weight", "b.3.bias", "y"}) == ()


@pytest.mark.parametrize(
    ("keys", "reasons"),
    [
        ({"b.3.bias", "y"}, ("no a.weight",)),
        ({"a.weight", "x"}, ("no b.*.bias",)),
        ({"a.weight", "b.0.bias"}, ("none of x, y",)),
        ({"a.weight", "b.0.bias", "x", "lora_up"}, ("lora*, which it must not have",)),
        (set(), ("no a.weight", "no b.*.bias", "none of x, y")),
    ],
)
def test_a_condition_says_why_it_does_not_match(keys: set[str], reasons: tuple[str, ...]) -> None:
    assert not CONDITION.matches(keys)
    assert CONDITION.missing(keys) == reasons


CONTROLNET = {"input_hint_block.0.weight", "zero_convs.0.0.weight", "middle_block_out.0.weight"}
SAMPLES = {
    "a Control-LoRA": CONTROLNET | {"lora_controlnet"},
    "a CtrLoRA": {
        "control_model.zero_convs.0.0.weight",
        "control_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_layer.down.weight",
    },
    "the base ControlNet of CtrLoRAs": {
        "control_model.zero_convs.0.0.weight",
        "control_model.middle_block_out.0.weight",
        "control_model.input_blocks.0.0.weight",
        "control_model.time_embed.0.lora_layer.down.weight",
    },
    "a SparseCtrl model": {
        "controlnet_cond_embedding.conv_in.weight",
        "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",
    },
    "an AnimateDiff motion module": {"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"},
    "a ControlNet Union model": CONTROLNET | {"control_add_embedding.linear_1.bias", "task_embedding"},
    "a ControlNet for Stable Diffusion": {f"control_model.{key}" for key in CONTROLNET},
    "an incomplete ControlNet for Stable Diffusion": CONTROLNET - {"zero_convs.0.0.weight"},
    "a ControlLLLite model": {"lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k.conditioning1.0.weight"},
    "a HunyuanDiT ControlNet": {"after_proj_list.18.bias"},
    "a Flux ControlNet (XLabs)": {"controlnet_blocks.0.weight", "double_blocks.0.img_attn.norm.key_norm.scale"},
    "a Flux ControlNet (MistoLine)": {"controlnet_blocks.0.linear.weight"},
    "an SD3 ControlNet": {"controlnet_blocks.0.weight", "pos_embed_input.proj.weight"},
    "a Flux ControlNet": {"controlnet_blocks.0.weight", "controlnet_x_embedder.weight"},
    "a Flux ControlNet Union": {
        "controlnet_blocks.0.weight",
        "controlnet_x_embedder.weight",
        "controlnet_mode_embedder.weight",
    },
    "an SD3.5 ControlNet": {"controlnet_blocks.0.weight", "transformer_blocks.0.adaLN_modulation.1.bias"},
    "a Qwen-Image control patch": {"controlnet_blocks.0.y_rms.weight", "img_in.weight"},
    "a Qwen-Image control model (Fun)": {"control_img_in.weight", "control_blocks.0.after_proj.weight"},
    "a Z-Image control model (Fun)": {"control_all_x_embedder.2-1.weight", "control_layers.0.before_proj.weight"},
    "a ControlLLLite model for Anima": {"lllite_dit_blocks_0_self_attn_q_proj.conditioning1.0.weight"},
    "a Qwen-Image ControlNet": {
        "controlnet_blocks.0.weight",
        "controlnet_x_embedder.weight",
        "transformer_blocks.0.img_mlp.net.0.proj.weight",
    },
    "a Stable Cascade ControlNet": {"backbone.0.0.weight"},
    "a T2I-Adapter style model": {"style_embedding", "transformer_layes.0.ln_1.weight"},
    "a T2I-Adapter": {"body.0.in_conv.weight"},
    "a PuLID for Flux": {"pulid_encoder.latents", "pulid_ca.0.to_q.weight"},
    "a PuLID": {"id_adapter.body.0.weight", "id_adapter_attn_layers.1.id_to_k.weight"},
    "an IP-Adapter": {"image_proj.norm.weight", "ip_adapter.1.to_k_ip.weight"},
    "a LoRA": {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "lora_te_text_model.alpha"},
    "a textual inversion": {"string_to_param.*"},
    "a Flux checkpoint": {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight"},
    "an SD3 checkpoint": {"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight"},
    "a CLIP text encoder": {"text_model.encoder.layers.0.mlp.fc1.weight"},
    "a CLIP image encoder": {"vision_model.encoder.layers.0.mlp.fc1.weight"},
    "an upscaler": {"model.1.sub.0.RDB1.conv1.0.weight"},
}


@pytest.mark.parametrize("name", SAMPLES)
def test_each_kind_is_told(name: str) -> None:
    assert describe_kind(SAMPLES[name]).partition(" (it")[0] == name


@pytest.mark.parametrize("name", [kind.name for kind in KINDS if kind.backbone and kind.name in SAMPLES])
def test_control_models_of_other_networks_are_refused_by_name(tmp_path: Path, name: str) -> None:
    """In a job, and beforehand on the page."""
    kind = next(kind for kind in KINDS if kind.name == name)
    save_file({key: torch.ones(1) for key in SAMPLES[name]}, tmp_path / "other.safetensors")
    with pytest.raises(ModelFileError, match=f"controls {kind.backbone}, not Stable Diffusion") as caught:
        load_model(tmp_path / "other.safetensors", Runtime(torch.device("cpu"), torch.float32), discover())
    assert "Sought" not in str(caught.value)
    assert kind.backbone in FactReader(discover()).read(tmp_path / "other.safetensors").problem


@pytest.mark.parametrize("build", [FluxControlNetModel, SD3ControlNetModel, QwenImageControlNetModel])
def test_diffusers_own_files_of_other_networks_are_told(build: Any) -> None:
    with torch.device("meta"):
        model = build(**({"extra_conditioning_channels": 0} if build is SD3ControlNetModel else {}))
    kind = kind_of(model.state_dict().keys())
    assert kind is not None
    assert kind.backbone in {"Flux", "SD 3", "Qwen-Image"}
    assert kind.backbone.replace(" ", "").replace("-", "") in build.__name__


def test_real_networks_are_told() -> None:
    with torch.device("meta"):
        unet = UNetModel(SD1).state_dict()
        controlnet = ControlNet(ControlNetConfig(SD1)).state_dict()
        vae = AutoencoderKL(block_out_channels=(32,)).state_dict()
        adapter = T2IAdapter(channels=(32, 32), downscale_factor=8).state_dict()
    assert describe_kind(controlnet.keys()) == "a ControlNet for Stable Diffusion"
    assert describe_kind(unet.keys()) == "a Stable Diffusion U-Net"
    assert describe_kind(diffusers_unet(SD1, unet).state_dict().keys()) == "a Stable Diffusion U-Net"
    assert describe_kind(vae.keys()) == "a VAE (it belongs into models/VAE)"
    assert describe_kind(adapter.keys()) == "a T2I-Adapter"
    checkpoint = {f"model.diffusion_model.{key}" for key in unet} | {f"first_stage_model.{key}" for key in vae}
    assert describe_kind(checkpoint) == "a whole Stable Diffusion checkpoint without a ControlNet"
    assert (
        describe_kind(checkpoint | {f"control_model.{key}" for key in controlnet})
        == "a ControlNet for Stable Diffusion"
    )


def test_an_unknown_file_is_described_by_its_keys() -> None:
    assert describe_kind(("a", "b", "c", "d")) == "a file of an unknown kind with 4 tensors (a, b, c, ...)"


def test_every_kind_can_be_printed() -> None:
    """What was sought is said in messages: each kind has a name and reasons for not being an empty file."""
    assert all(kind.name and kind.condition.missing(()) for kind in KINDS)


def test_canonical_leaves_other_kinds_alone() -> None:
    keys = dict.fromkeys(SAMPLES["a LoRA"], torch.zeros(1))
    assert set(canonical(keys)) == set(keys)


def test_canonical_keeps_what_a_kind_adds_to_a_diffusers_controlnet() -> None:
    keys = {"controlnet_cond_embedding.conv_in.weight": torch.zeros(1), "task_embedding": torch.zeros(1)}
    assert set(canonical(keys)) == {"input_hint_block.0.weight", "task_embedding"}
