"""The demo checkpoint: U-Net, auto-encoder and text encoder in one file under Stable Diffusion 1's LDM names.

python -m standalone.demo.checkpoint --unet FILE --vae FILE --text FILE --cache FILE   writes
models/demo/demo.safetensors
and demo.yaml, which describes the same sizes to hosts that build their networks from a config.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel

from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training.export import write_weights

from .networks import LEVELS, new_autoencoder, new_text_encoder, new_unet

FOLDER: Final = Path(__file__).resolve().parents[2] / "models" / "demo"
CHECKPOINT: Final = FOLDER / "demo.safetensors"
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
SCALE_KEY: Final = "demo.scale_factor"

_VAE_NAMES: Final = (
    (r"^(encoder|decoder)\.mid_block\.resnets\.0\.", r"\1.mid.block_1."),
    (r"^(encoder|decoder)\.mid_block\.resnets\.1\.", r"\1.mid.block_2."),
    (r"^(encoder|decoder)\.mid_block\.attentions\.0\.", r"\1.mid.attn_1."),
    (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
    (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
    (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"^encoder\.down_blocks\.(\d)\.resnets\.", r"encoder.down.\1.block."),
    (r"^encoder\.down_blocks\.(\d)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
)


@dataclass(frozen=True, eq=False)
class DemoModel:
    """The three networks in float32, in evaluation mode, and the factor between the VAE's latents and the U-Net's."""

    unet: UNetModel
    vae: AutoencoderKL
    text: CLIPTextModel
    scale: float


def ldm_vae_key(key: str) -> str:
    """LDM's name of a weight of diffusers' AutoencoderKL."""
    match = re.match(r"^decoder\.up_blocks\.(\d)\.(resnets|upsamplers\.0)\.", key)
    if match:
        part = "block" if match[2] == "resnets" else "upsample"
        key = f"decoder.up.{LEVELS - 1 - int(match[1])}.{part}.{key[match.end() :]}"
    for pattern, name in _VAE_NAMES:
        key = re.sub(pattern, name, key)
    return key


def to_ldm(unet: UNetModel, vae: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights = {UNET + key: value for key, value in unet.state_dict().items()}
    for key, value in vae.items():
        name = ldm_vae_key(key)
        as_convolution = re.search(r"attn_1\.(q|k|v|proj_out)\.weight$", name)
        weights[VAE + name] = value[:, :, None, None] if as_convolution else value
    weights |= {TEXT + key.removeprefix("text_model."): value for key, value in text.items()}
    weights[TEXT + "embeddings.position_ids"] = torch.arange(77)[None]
    return weights


def load(path: Path = CHECKPOINT) -> DemoModel:
    """Read the checkpoint with no code but this file's key map."""
    with safe_open(str(path), "pt") as stream:
        scale = float(stream.metadata()[SCALE_KEY])
    weights = load_file(str(path))
    unet, vae, text = new_unet(), new_autoencoder(), new_text_encoder()
    unet.load_state_dict(_under(weights, UNET))
    own, stored = vae.state_dict(), _under(weights, VAE)
    vae.load_state_dict({key: stored[ldm_vae_key(key)].reshape(value.shape) for key, value in own.items()})
    stored = _under(weights, TEXT)
    text.load_state_dict({key: stored[key.removeprefix("text_model.")] for key in text.state_dict()})
    for network in (unet, vae, text):
        network.eval().requires_grad_(False)
    return DemoModel(unet, vae, text, scale)


def _under(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value.float() for key, value in weights.items() if key.startswith(prefix)}


CONFIG: Final = """\
# The demo model for hosts that build LDM networks from a config. `version` is the folder `clip` beside this file, as a
# path from the folder in which the host is started, or absolute.
model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    first_stage_key: jpg
    cond_stage_key: txt
    image_size: 16
    channels: 4
    cond_stage_trainable: false
    conditioning_key: crossattn
    monitor: val/loss_simple_ema
    scale_factor: {scale}
    use_ema: False
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 16
        in_channels: 4
        out_channels: 4
        model_channels: 96
        attention_resolutions: [2, 4]
        num_res_blocks: 1
        channel_mult: [1, 1, 1]
        num_heads: 8
        use_spatial_transformer: True
        transformer_depth: 1
        context_dim: 64
        use_checkpoint: False
        legacy: False
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        monitor: val/rec_loss
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: 128
          in_channels: 3
          out_ch: 3
          ch: 96
          ch_mult: [1, 1, 1, 1]
          num_res_blocks: 0
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      params:
        version: extensions/{extension}/models/demo/clip
"""


def write(options: argparse.Namespace) -> None:
    unet = new_unet()
    unet.load_state_dict(load_file(str(options.unet)))
    scale = float(load_file(str(options.cache))["scale"])
    weights = to_ldm(unet, load_file(str(options.vae)), load_file(str(options.text)))
    options.out.mkdir(parents=True, exist_ok=True)
    write_weights(
        weights,
        options.out / "demo.safetensors",
        {
            "modelspec.architecture": "stable-diffusion-v1",
            "modelspec.title": "ControlNet demo model",
            "modelspec.license": "Apache-2.0",
            "modelspec.resolution": "128x128",
            "modelspec.prediction_type": "epsilon",
            SCALE_KEY: repr(scale),
            "demo.recipe": "models/demo/README.md",
        },
    )
    text = CONFIG.format(scale=repr(scale), extension="sd-webui-controlnet")
    (options.out / "demo.yaml").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("unet", "vae", "text", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=FOLDER)
    write(parser.parse_args())


if __name__ == "__main__":
    main()
