"""Stable Diffusion 1.5 at its real size, with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.operations import Operations
from lib_controlnet.nets.unet import UNetModel

SD15 = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=320,
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    transformer_depth=(1, 1, 1, 0),
    middle_depth=1,
    context_dim=768,
    num_heads=8,
    head_dim=None,
    use_linear=False,
    adm_channels=None,
)
ROWS = 2
"""One picture with guidance: a cond and an uncond row."""

Network = TypeVar("Network", bound=nn.Module)


def unet() -> UNetModel:
    """SD1.5's U-Net (3.4 GB)."""
    return drawn(UNetModel(SD15, Operations(initialise=False)), seed=1)


def outline_of_unet() -> Mapping[str, Tensor]:
    """Its weights' names and shapes."""
    with torch.device("meta"):
        return UNetModel(SD15, Operations(initialise=False)).state_dict()


def controlnet() -> ControlNet:
    """A ControlNet for it (1.4 GB)."""
    return drawn(ControlNet(ControlNetConfig(SD15), Operations(initialise=False)), seed=2)


def diffusers_controlnet() -> nn.Module:
    """diffusers' class at the same size; its defaults are SD1.5's, its attention is PyTorch's fused one as ours."""
    from diffusers.models.controlnets.controlnet import ControlNetModel

    with torch.device("meta"):
        network = ControlNetModel(cross_attention_dim=768)
    return drawn(network.to_empty(device="cpu"), seed=2)


def controlnet_file(folder: Path) -> Path:
    """A ControlNet of random weights as users have it on disk (fp32 safetensors)."""
    path = folder / "bench_controlnet.safetensors"
    if not path.exists():
        save_file({key: value.contiguous() for key, value in controlnet().state_dict().items()}, path)
    return path


def inputs(pixels: int, rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor]:
    """x (rows, 4, h, w), timesteps (rows,) and context (rows, 77, 768) of one step."""
    generator = torch.Generator().manual_seed(3)
    # As hosts give them: the same latents in every row, a prompt of its own in each.
    x = torch.randn(1, 4, pixels // 8, pixels // 8, generator=generator).repeat(rows, 1, 1, 1)
    context = torch.randn(rows, 77, SD15.context_dim, generator=generator)
    return x, torch.full((rows,), 500.0), context


def hint(pixels: int) -> Tensor:
    """(1, 3, H, W) in 0..1."""
    return torch.rand(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(4))


def drawn(network: Network, seed: int) -> Network:
    """Weights small enough that activations stay finite: infinities and denormals would change the speed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.uniform_(-1, 1, generator=generator).mul_(parameter[0].numel() ** -0.5)
            else:
                parameter.fill_(0.1)
    return network.eval().requires_grad_(False)
