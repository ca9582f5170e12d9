"""The demo model's auto-encoder and text encoder, and its place in the checkpoint.

Every width is 96: LDM code hard-codes 32 GroupNorm groups, and a group of three channels is the least that can carry
the absolute level of a flat colour through the normalisation (see `keep_levels`).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.unet import UNetModel

WIDTH = 96
GROUPS = 32
LEVELS = 4


def new_autoencoder() -> AutoencoderKL:
    """An f=8, 4-channel KL auto-encoder, 1.9M parameters, initialised for flat colours."""
    build: Any = AutoencoderKL  # its annotations allow for one level only
    model: AutoencoderKL = build(
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
        block_out_channels=(WIDTH,) * LEVELS,
        layers_per_block=0,
        latent_channels=4,
        norm_num_groups=GROUPS,
        sample_size=128,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("conv2.weight", "to_out.0.weight")):
                parameter.zero_()
    keep_levels(model, "encoder.mid_block.resnets.1.conv2")
    keep_levels(model, f"decoder.up_blocks.{LEVELS - 1}.resnets.0.conv2")
    return model


@torch.no_grad()
def keep_levels(network: nn.Module, name: str, level: float = 4.0) -> None:
    """Bias two of the three channels of every GroupNorm group by a large constant of opposite sign.

    A group of few channels is centred and scaled by the very colour it should pass on; with two big constants in the
    group its mean and deviation hardly depend on the third channel, whose level therefore survives.
    """
    bias = network.get_parameter(f"{name}.bias")
    bias[1::3] += level
    bias[2::3] -= level


def posterior(model: AutoencoderKL, images: Tensor) -> DiagonalGaussianDistribution:
    """Of images (n, 3, 8h, 8w) in -1..1; `.mean` is (n, 4, h, w), not scaled."""
    return cast(Any, model.encode(cast(Any, images))).latent_dist


def decoded(model: AutoencoderKL, latents: Tensor) -> Tensor:
    """Images (n, 3, 8h, 8w), about -1..1, of latents (n, 4, h, w), not scaled."""
    return cast(Any, model.decode(cast(Any, latents))).sample


def new_text_encoder(hidden: int = 64) -> CLIPTextModel:
    """A CLIP text model of SD1's kind: 2 layers, one head per 64 channels, 49408 tokens, 77 places."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            projection_dim=hidden,
            num_hidden_layers=2,
            num_attention_heads=max(1, hidden // 64),
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
    )


def new_unet() -> UNetModel:
    """Three levels (16x16, 8x8, 4x4), attention from 8x8 down, 7 residuals, 4.8M parameters."""
    return UNetModel(
        UNetConfig(
            in_channels=4,
            out_channels=4,
            model_channels=WIDTH,
            channel_mult=(1, 1, 1),
            num_res_blocks=1,
            transformer_depth=(0, 1, 1),
            middle_depth=1,
            context_dim=64,
            num_heads=8,
            head_dim=None,
            use_linear=False,
            adm_channels=None,
            groups=GROUPS,
        )
    )
