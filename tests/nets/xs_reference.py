"""diffusers' ControlNet-XS for the tiny U-Nets, and its weights under vislearn's names."""

from __future__ import annotations

import torch
from diffusers import ControlNetXSAdapter, UNetControlNetXSModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from lib_controlnet.loading.xs import xs_names
from lib_controlnet.nets.config import UNetConfig

from .ldm_oracle import diffusers_unet, randomise


def heads_of(config: UNetConfig, width: int) -> int:
    if config.num_heads is not None:
        return 8
    return width // max(d for d in range(1, min(width, 64) + 1) if width % d == 0)


def adapter(config: UNetConfig, ratio: float = 0.5, learns_time: bool = False, mix: float = 1.0) -> ControlNetXSAdapter:
    """Random weights, zero convolutions too."""
    widths = [int(config.model_channels * mult * ratio) for mult in config.channel_mult]
    depths = [*config.transformer_depth[:-1], config.middle_depth]
    net = ControlNetXSAdapter(
        conditioning_embedding_out_channels=(8, 16, 24, 32),
        time_embedding_mix=mix,
        learn_time_embedding=learns_time,
        num_attention_heads=[heads_of(config, width) for width in widths],
        block_out_channels=widths,
        base_block_out_channels=[config.model_channels * mult for mult in config.channel_mult],
        cross_attention_dim=config.context_dim,
        down_block_types=tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in config.transformer_depth),
        transformer_layers_per_block=depths,
        upcast_attention=False,
        use_linear_projection=config.use_linear,
    )
    randomise(net, seed=9)
    return net


def controlled(
    config: UNetConfig, weights: dict[str, Tensor], control: ControlNetXSAdapter, mix: float = 1.0
) -> UNetControlNetXSModel:
    """diffusers' U-Net with an adapter. The base's norms are the U-Net's: diffusers gives some of them another eps."""
    unet = diffusers_unet(config, weights)
    net = UNetControlNetXSModel.from_unet(unet, control)
    net.register_to_config(time_embedding_mix=mix)
    base = [net.mid_block.base_midblock, *net.up_blocks, *(b for block in net.down_blocks for b in block.base_resnets)]
    for part in base:
        for module in part.modules():
            if isinstance(module, ResnetBlock2D):
                module.norm1.eps = module.norm2.eps = 1e-5
    return net.eval().requires_grad_(False)


def vislearn(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layout of vislearn's files: its scales, and base weights beside."""
    names = xs_names({key: key for key in weights})
    assert names is not None
    renamed = {key: weights[origin] for key, origin in names.items()}
    count = sum(key.startswith("enc_zero_convs_out.") and key.endswith("weight") for key in renamed)
    base = {"diffusion_model.out.0.weight": torch.ones(4)}
    return {**renamed, **base, "scale_list": torch.ones(2 * count + 1)}
