"""Random checkpoints of SD 1.x's structure in tiny, with LDM keys."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.unet import UNetModel

CONTEXT = 64
LEVELS = 4


def unet_config(in_channels: int = 4, width: int = 32) -> UNetConfig:
    return UNetConfig(
        in_channels=in_channels,
        out_channels=4,
        model_channels=width,
        channel_mult=(1, 2),
        num_res_blocks=1,
        transformer_depth=(0, 1),
        middle_depth=1,
        context_dim=CONTEXT,
        num_heads=8,
        head_dim=None,
        use_linear=False,
        adm_channels=None,
    )


def _ldm_vae_key(key: str) -> str:
    """diffusers' name of a VAE weight under LDM's: written apart from the product's map, to check it."""
    side, _, rest = key.partition(".")
    if side not in ("encoder", "decoder"):
        return key
    rest = rest.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    rest = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", rest)
    for new, old in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        rest = rest.replace(f"mid_block.attentions.0.{new}.", f"mid.attn_1.{old}.")
    block = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.*)", rest)
    if not block:
        return f"{side}.{rest}"
    kind, level, part, index, tail = block.groups()
    level = int(level) if kind == "down" else LEVELS - 1 - int(level)
    middle = f"block.{index}" if part == "resnets" else "downsample" if part == "downsamplers" else "upsample"
    return f"{side}.{kind}.{level}.{middle}.{tail}"


def random_vae(layers: int = 0) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32,) * LEVELS,
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
        layers_per_block=layers,
        norm_num_groups=32,
        latent_channels=4,
    )


def random_text_model() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=CONTEXT,
            intermediate_size=2 * CONTEXT,
            num_hidden_layers=2,
            num_attention_heads=1,
            hidden_act="quick_gelu",
        )
    )


def _spread(module: torch.nn.Module) -> dict[str, Tensor]:
    """Numbers for every weight, whatever its layer starts with (zeros, or memory as it was)."""
    weights = {k: torch.empty_like(v) for k, v in module.state_dict().items()}
    for key, value in weights.items():
        if value.ndim > 1:
            value.normal_(std=value[0].numel() ** -0.5)
        elif key.endswith("bias"):
            value.normal_(std=0.02)
        else:
            value.normal_(mean=1.0, std=0.1)
    return weights


def weights(seed: int = 0, in_channels: int = 4, width: int = 32) -> dict[str, Tensor]:
    """All weights of a checkpoint, float32."""
    torch.manual_seed(seed)
    result: dict[str, Tensor] = {}
    unet = _spread(UNetModel(unet_config(in_channels, width)))
    result.update({f"model.diffusion_model.{k}": v for k, v in unet.items()})
    for key, value in _spread(random_vae()).items():
        convolution = ".attentions." in key and value.ndim == 2
        result[f"first_stage_model.{_ldm_vae_key(key)}"] = value[:, :, None, None] if convolution else value
    for key, value in _spread(random_text_model()).items():
        name = key if key.startswith("text_model.") else f"text_model.{key}"
        result[f"cond_stage_model.transformer.{name}"] = value
    return {k: v.contiguous() for k, v in result.items()}


def write(folder: Path, name: str = "tiny", **settings: int) -> Path:
    """A .safetensors checkpoint in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.safetensors"
    save_file(weights(**settings), file)
    return file
