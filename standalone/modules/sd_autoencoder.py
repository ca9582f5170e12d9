"""The VAE: diffusers' AutoencoderKL under the weights and the calls of an LDM checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

PREFIX = "first_stage_model."


class DiagonalGaussianDistribution:
    """Posterior of the encoder: mean and log variance, each (B, z, h, w)."""

    def __init__(self, moments: Tensor) -> None:
        self.parameters = moments
        self.mean, logvar = torch.chunk(moments, 2, dim=1)
        self.logvar = torch.clamp(logvar, -30.0, 20.0)
        self.std = torch.exp(0.5 * self.logvar)

    def sample(self) -> Tensor:
        """One sample; the noise comes from the global CPU generator, as in LDM."""
        return self.mean + self.std * torch.randn(self.mean.shape).to(device=self.parameters.device)

    def mode(self) -> Tensor:
        return self.mean


class Autoencoder(nn.Module):
    """`encode` to a distribution, `decode` to pictures in -1..1."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    @property
    def calls(self) -> Any:
        """The model, without the library's own annotations, which name the tuple form of its answers."""
        return self.vae

    @property
    def dtype(self) -> torch.dtype:
        return self.vae.dtype

    @property
    def device(self) -> torch.device:
        return self.vae.device

    def encode(self, x: Tensor) -> DiagonalGaussianDistribution:
        """x (B, 3, H, W) in -1..1."""
        return DiagonalGaussianDistribution(self.calls.encode(x).latent_dist.parameters)

    def decode(self, z: Tensor) -> Tensor:
        """z (B, 4, h, w), not scaled, to (B, 3, 8h, 8w)."""
        return self.calls.decode(z).sample

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x).mode())


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    found = [int(m.group(1)) for key in weights if (m := re.match(pattern, key))]
    return max(found) + 1 if found else 0


def config_from(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """AutoencoderKL's arguments from the shapes of LDM weights without prefix."""
    width = weights["encoder.conv_in.weight"].shape[0]
    levels = _count(weights, r"decoder\.up\.(\d+)\.")
    blocks = _count(weights, r"decoder\.up\.0\.block\.(\d+)\.")
    widths = [weights[f"decoder.up.{i}.block.{blocks - 1}.conv2.weight"].shape[0] for i in range(levels)]
    if levels == 0 or widths[0] != width:
        raise ValueError(f"the checkpoint's VAE has an unknown structure ({levels} levels of widths {widths})")
    return {
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "out_channels": weights["decoder.conv_out.weight"].shape[0],
        "latent_channels": weights["decoder.conv_in.weight"].shape[1],
        "block_out_channels": tuple(widths),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": blocks - 1,
        "norm_num_groups": 32,
        "sample_size": 512,
    }


REPLACEMENTS = (
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.(q|k|v)\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.down\.(\d+)\.block\.(\d+)\.", r".down_blocks.\1.resnets.\2."),
    (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.up\.(\d+)\.block\.(\d+)\.", r".up_blocks.\1.resnets.\2."),
    (r"\.up\.(\d+)\.upsample\.", r".up_blocks.\1.upsamplers.0."),
)


def diffusers_key(key: str, levels: int) -> str:
    """An LDM key under diffusers' name; LDM counts decoder levels from the picture, diffusers from the latent."""
    for pattern, replacement in REPLACEMENTS:
        key = re.sub(pattern, replacement, key)
    return re.sub(r"\.up_blocks\.(\d+)\.", lambda m: f".up_blocks.{levels - 1 - int(m.group(1))}.", key)


def converted(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LDM weights (without prefix) for AutoencoderKL; 1x1 convolutions of the attention become matrices."""
    levels = _count(weights, r"decoder\.up\.(\d+)\.")
    result: dict[str, Tensor] = {}
    for key, value in weights.items():
        name = diffusers_key(key, levels)
        if ".attentions." in name and value.ndim == 4:
            value = value[:, :, 0, 0]
        result[name] = value
    return result


def part(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}


def _own_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights = part(state_dict, PREFIX)
    if "encoder.conv_in.weight" not in weights:
        raise ValueError(f"no VAE in this checkpoint: {PREFIX}encoder.conv_in.weight is missing")
    return {k: v for k, v in weights.items() if not k.startswith(("loss.", "model_ema."))}


def config_key(state_dict: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """What must be equal for two checkpoints' VAEs to fit into the same modules."""
    return tuple(sorted(config_from(_own_weights(state_dict)).items()))


def build(state_dict: Mapping[str, Tensor]) -> Autoencoder:
    weights = _own_weights(state_dict)
    with torch.device("meta"):
        vae = AutoencoderKL(**config_from(weights))
    vae.load_state_dict(converted(weights), strict=True, assign=True)
    return Autoencoder(vae)


def reload(model: Autoencoder, state_dict: Mapping[str, Tensor]) -> None:
    """Other weights into the same modules."""
    model.vae.load_state_dict(converted(_own_weights(state_dict)), strict=True)
