"""Diffusers' networks as the independent oracle: same sizes, weights carried over by diffusers' own converters."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint, convert_ldm_unet_checkpoint
from torch import Tensor, nn

from lib_controlnet.nets.config import ControlNetConfig, UNetConfig

TIME_IDS = 6
"""Numbers of SDXL's size embedding; each is embedded in the same width, the pooled text fills the rest of `y`."""
TIME_DIM = 8


def randomise(module: nn.Module, seed: int) -> None:
    """Every weight random, the zero convolutions too, so that no error can hide behind a 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.copy_(0.3 * noise + 0.5)
            else:
                weight.copy_(noise * (0.5 / weight[0].numel()) ** 0.5)
    module.eval().requires_grad_(False)


def example(config: UNetConfig, seed: int = 0, size: tuple[int, int] = (16, 16)) -> dict[str, Tensor]:
    """Arguments of our networks: x, timesteps (one of them not whole), context and, for SDXL, y."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = {
        "x": draw(2, config.in_channels, *size),
        "timesteps": torch.tensor([981.0, 37.25]),
        "context": draw(2, 7, config.context_dim),
    }
    if config.adm_channels is not None:
        inputs["y"] = draw(2, config.adm_channels)
    return inputs


def for_diffusers(inputs: dict[str, Tensor]) -> dict[str, Any]:
    """The same arguments as diffusers' networks take them."""
    named: dict[str, Any] = {
        "sample": inputs["x"],
        "timestep": inputs["timesteps"],
        "encoder_hidden_states": inputs["context"],
    }
    if "y" in inputs:
        # Only the sum of pooled text and embedded sizes matters to the network; sizes whose embedding is known:
        named["added_cond_kwargs"] = {"text_embeds": inputs["y"][:, : -TIME_IDS * TIME_DIM], "time_ids": _SIZES}
    return named


_SIZES = torch.tensor([[512.0, 640.0, 0.0, 8.0, 512.0, 640.0]]).expand(2, -1)


def with_sizes(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """`inputs` whose `y` ends with the embedding of the sizes that `for_diffusers` gives to diffusers."""
    if "y" not in inputs:
        return inputs
    frequencies = 10000.0 ** -(torch.arange(TIME_DIM // 2) / (TIME_DIM // 2))
    angles = _SIZES[..., None] * frequencies
    sizes = torch.cat([angles.cos(), angles.sin()], dim=-1).flatten(1)
    return inputs | {"y": torch.cat([inputs["y"][:, : -TIME_IDS * TIME_DIM], sizes], dim=1)}


def diffusers_sizes(config: UNetConfig) -> dict[str, Any]:
    """Arguments of diffusers' constructors for the network of `config`."""
    widths = tuple(mult * config.model_channels for mult in config.channel_mult)
    heads = config.num_heads if config.num_heads is not None else [width // 64 for width in widths]
    sizes: dict[str, Any] = {
        "in_channels": config.in_channels,
        "block_out_channels": widths,
        "layers_per_block": config.num_res_blocks,
        "down_block_types": tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in config.transformer_depth),
        # The last entry is also the middle's.
        "transformer_layers_per_block": [*config.transformer_depth[:-1], config.middle_depth],
        "cross_attention_dim": config.context_dim,
        # diffusers' name for the number of heads, kept wrong for compatibility.
        "attention_head_dim": heads,
        "use_linear_projection": config.use_linear,
        "norm_num_groups": config.groups,
    }
    if config.adm_channels is not None:
        sizes |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_DIM,
            "projection_class_embeddings_input_dim": config.adm_channels,
        }
    return sizes


def diffusers_unet(config: UNetConfig, weights: dict[str, Tensor]) -> UNet2DConditionModel:
    """Diffusers' U-Net with `weights` in LDM naming."""
    up = tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(config.transformer_depth))
    with torch.device("meta"):
        unet = UNet2DConditionModel(out_channels=config.out_channels, up_block_types=up, **diffusers_sizes(config))
    prefixed = {"model.diffusion_model." + key: value for key, value in weights.items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(prefixed, dict(unet.config)), strict=True, assign=True)
    return unet.eval().requires_grad_(False)


def diffusers_controlnet(config: ControlNetConfig, weights: dict[str, Tensor]) -> ControlNetModel:
    """Diffusers' ControlNet with `weights` in LDM naming."""
    with torch.device("meta"):
        net = ControlNetModel(
            conditioning_channels=config.hint_channels,
            conditioning_embedding_out_channels=config.hint_widths,
            **diffusers_sizes(config.unet),
        )
    net.load_state_dict(to_diffusers(config, weights), strict=True, assign=True)
    return net.eval().requires_grad_(False)


def to_diffusers(config: ControlNetConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """ControlNet `weights` in LDM naming under diffusers' names."""
    converted = convert_controlnet_checkpoint(dict(weights), {"layers_per_block": config.unet.num_res_blocks})
    # The one part of SDXL's that diffusers' converter leaves out.
    for theirs, ours in {"linear_1": "label_emb.0.0", "linear_2": "label_emb.0.2"}.items():
        converted |= {
            f"add_embedding.{theirs}.{leaf}": weights[f"{ours}.{leaf}"]
            for leaf in ("weight", "bias")
            if f"{ours}.{leaf}" in weights
        }
    return converted
