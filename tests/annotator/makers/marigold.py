"""Marigold in small: each part as diffusers and transformers write it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .segmentation import lively

_WIDTH = 32


def unet() -> Any:
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(
        in_channels=8,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        use_linear_projection=True,
    )
    return lively(network, 1).eval()


def vae() -> Any:
    from diffusers import AutoencoderKL

    network = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
    )
    return lively(network, 2).eval()


def text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(3)
    sizes = {"hidden_size": _WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLIPTextModel(CLIPTextConfig(**sizes, initializer_factor=20.0)).eval()


def scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def saved(make: Callable[[], Any]) -> Callable[[Path], None]:
    return lambda file: make().save_pretrained(file.parent)


MAKERS = {
    "unet/config.json": saved(unet),
    "unet/diffusion_pytorch_model.safetensors": saved(unet),
    "vae/config.json": saved(vae),
    "vae/diffusion_pytorch_model.safetensors": saved(vae),
    "text_encoder/config.json": saved(text_encoder),
    "text_encoder/model.safetensors": saved(text_encoder),
    "scheduler/scheduler_config.json": saved(scheduler),
}
