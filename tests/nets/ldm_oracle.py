"""Diffusers' networks as the independent oracle: same sizes, weights carried over by diffusers' own converters."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint, convert_ldm_unet_checkpoint
from torch import Tensor, nn

from lib_controlnet.nets.config import ControlNetConfig, UNetConfig


def randomise(module: nn.Module, seed: int) -> None:
    """Every weight random, the zero convolutions too, so that no error can hide behind a 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.copy_(0.1 * noise + (1.0 if "norm" in name or name.endswith("layers.0.weight") else 0.0))
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)


def diffusers_sizes(config: UNetConfig) -> dict[str, Any]:
    """Arguments of diffusers' constructors for the network of `config`."""
    widths = tuple(mult * config.model_channels for mult in config.channel_mult)
    heads = config.num_heads if config.num_heads is not None else [width // 64 for width in widths]
    sizes: dict[str, Any] = {
        "in_channels": config.in_channels,
        "block_out_channels": widths,
        "layers_per_block": config.num_res_blocks,
        "down_block_types": tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in config.transformer_depth),
        "transformer_layers_per_block": [max(d, 1) for d in config.transformer_depth],
        "cross_attention_dim": config.context_dim,
        # diffusers' name for the number of heads, kept wrong for compatibility.
        "attention_head_dim": heads,
        "use_linear_projection": config.use_linear,
        "norm_num_groups": config.groups,
    }
    if config.adm_channels is not None:
        sizes |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": config.adm_channels,
        }
    assert config.middle_depth == max(config.transformer_depth[-1], 1)
    return sizes


def diffusers_unet(config: UNetConfig, weights: dict[str, Tensor]) -> UNet2DConditionModel:
    """Diffusers' U-Net with `weights` in LDM naming."""
    sizes = diffusers_sizes(config)
    up = tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(config.transformer_depth))
    unet = UNet2DConditionModel(out_channels=config.out_channels, up_block_types=up, **sizes)
    prefixed = {"model.diffusion_model." + key: value.clone() for key, value in weights.items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(prefixed, dict(unet.config)), strict=True)
    return unet.eval().requires_grad_(False)


def diffusers_controlnet(config: ControlNetConfig, weights: dict[str, Tensor]) -> ControlNetModel:
    """Diffusers' ControlNet with `weights` in LDM naming."""
    net = ControlNetModel(
        conditioning_channels=config.hint_channels,
        conditioning_embedding_out_channels=config.hint_widths,
        **diffusers_sizes(config.unet),
    )
    copied = {key: value.clone() for key, value in weights.items()}
    net.load_state_dict(convert_controlnet_checkpoint(copied, dict(net.config)), strict=True)
    return net.eval().requires_grad_(False)
