"""Checkpoints of SD 2.x's and SDXL's kind, random and tiny: prompts as transformers' own models encode them, and whole
trainings. OpenCLIP's names are written here by hand, apart from the converter that the product uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training.base import load_base
from lib_controlnet.training.cache import Place, size_condition
from lib_controlnet.training.config import BaseOptions
from lib_controlnet.training.text import TOKENIZER
from tests.nets.ldm_oracle import randomise
from tests.standalone.tiny_checkpoint import _spread, random_text_model, weights

from .tiny import Memory, config, session

WIDTH = 64
PROMPTS = ["a red heart", "", "a star " * 60]


def open_clip_model(layers: int = 3) -> CLIPTextModelWithProjection:
    torch.manual_seed(4)
    model = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=layers,
            num_attention_heads=1, hidden_act="gelu", projection_dim=WIDTH, bos_token_id=49406, eos_token_id=49407,
        )
    ).eval()  # fmt: skip
    model.load_state_dict(_spread(model))
    return model


def open_clip_weights(model: Any, prefix: str) -> dict[str, Tensor]:
    """OpenCLIP's names: joint projections, a transposed text projection, resblocks."""
    own = {key.removeprefix("text_model."): value for key, value in model.state_dict().items()}
    named = {
        "token_embedding.weight": own["embeddings.token_embedding.weight"],
        "positional_embedding": own["embeddings.position_embedding.weight"],
        "ln_final.weight": own["final_layer_norm.weight"],
        "ln_final.bias": own["final_layer_norm.bias"],
        "text_projection": own["text_projection.weight"].T.contiguous(),
    }
    pairs = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    for layer in range(model.config.num_hidden_layers):
        theirs, ours = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for leaf in ("weight", "bias"):
            parts = [own[f"{theirs}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            named[f"{ours}.attn.in_proj_{leaf}"] = torch.cat(parts)
            named |= {f"{ours}.{b}.{leaf}": own[f"{theirs}.{a}.{leaf}"] for a, b in pairs.items()}
    return {prefix + key: value.clone() for key, value in named.items()}


def unet_weights(context: int, adm: int | None) -> dict[str, Tensor]:
    unet = UNetModel(
        UNetConfig(
            in_channels=4, out_channels=4, model_channels=64, channel_mult=(1, 2), num_res_blocks=1,
            transformer_depth=(0, 1), middle_depth=1, context_dim=context, num_heads=None, head_dim=64,
            use_linear=True, adm_channels=adm,
        )
    )  # fmt: skip
    randomise(unet, seed=3)
    return {f"model.diffusion_model.{key}": value for key, value in unet.state_dict().items()}


def vae_weights() -> dict[str, Tensor]:
    return {key: value for key, value in weights().items() if key.startswith("first_stage_model.")}


@pytest.fixture
def xl(tmp_path: Path) -> tuple[Path, CLIPTextModel, CLIPTextModelWithProjection]:
    first, second = random_text_model().eval(), open_clip_model()
    first.load_state_dict(_spread(first))
    content = unet_weights(2 * WIDTH, WIDTH + 6 * 256) | vae_weights()
    content |= open_clip_weights(second, "conditioner.embedders.1.model.")
    for key, value in first.state_dict().items():
        content[f"conditioner.embedders.0.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    save_file({key: value.contiguous() for key, value in content.items()}, tmp_path / "xl.safetensors")
    return tmp_path / "xl.safetensors", first, second


@pytest.fixture
def sd2(tmp_path: Path) -> tuple[Path, CLIPTextModelWithProjection]:
    model = open_clip_model()
    content = unet_weights(WIDTH, None) | vae_weights() | open_clip_weights(model, "cond_stage_model.model.")
    save_file({key: value.contiguous() for key, value in content.items()}, tmp_path / "sd2.safetensors")
    return tmp_path / "sd2.safetensors", model


def tokens(pad: str) -> Tensor:
    tokenizer = CLIPTokenizer.from_pretrained(str(TOKENIZER), local_files_only=True, pad_token=pad)
    found: Any = tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    return found.input_ids


@torch.no_grad()
def test_sdxl_reads_the_layer_before_the_last_of_both_and_the_pooled_second(xl: Any) -> None:
    path, first, second = xl
    base = load_base(BaseOptions(checkpoint=path))
    assert base.kind == "stable-diffusion-xl-v1-base"
    assert base.autoencoder.scale == 0.13025
    made = base.text.encode(PROMPTS)
    one = first(tokens("<|endoftext|>"), output_hidden_states=True)
    two = second(tokens("!"), output_hidden_states=True)
    wanted = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
    assert made.pooled is not None
    assert torch.allclose(made.context, wanted, atol=1e-5)
    assert torch.allclose(made.pooled, two.text_embeds, atol=1e-5)


@torch.no_grad()
def test_sd2_reads_the_layer_before_the_last_normed(sd2: Any) -> None:
    """diffusers ships SD 2.x's text encoder without its last layer: the same thing said otherwise."""
    path, model = sd2
    shorter = CLIPTextModel(CLIPTextConfig(**{**model.config.to_dict(), "num_hidden_layers": 2})).eval()
    kept = {key.removeprefix("text_model."): value for key, value in model.state_dict().items()}
    shorter.load_state_dict({key: kept[key.removeprefix("text_model.")] for key in shorter.state_dict()})
    base = load_base(BaseOptions(checkpoint=path))
    made = base.text.encode(PROMPTS)
    assert base.kind == "stable-diffusion-v2"
    assert made.pooled is None
    assert torch.allclose(made.context, shorter(tokens("!")).last_hidden_state, atol=1e-5)


def test_sdxls_sizes_are_height_first() -> None:
    """A picture of 640x480 trained at 512x512: resized to 683x512, cut 85 from the left."""
    y = size_condition(torch.zeros(1, 4), [Place((512, 512), (640, 480))])
    frequencies = 10000.0 ** -(torch.arange(128) / 128)
    angles = torch.tensor([480.0, 640, 0, 85, 512, 512])[:, None] * frequencies
    assert torch.allclose(y[0, 4:], torch.cat([angles.cos(), angles.sin()], dim=1).flatten(), atol=1e-3)


@pytest.mark.parametrize("kind", ["xl", "sd2"])
def test_a_training_of_this_kind(kind: str, pairs: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)[0]
    watcher = Memory()
    outcome = session(config(path, pairs, tmp_path / "out", samples={"every": 8}), watcher).run()
    made = load_file(str(outcome.files["model"]))
    assert outcome.locked_unchanged
    assert len(watcher.looks) == 2
    assert made["zero_convs.0.0.weight"].any()
    assert ("label_emb.0.0.weight" in made) == (kind == "xl")
