"""ControlNets written in every format in which users have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_controlnet.nets.config import ControlNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from tests.nets.ldm_oracle import randomise, to_diffusers

Weights = dict[str, Tensor]


def controlnet(config: ControlNetConfig, seed: int = 0) -> ControlNet:
    net = ControlNet(config)
    randomise(net, seed)
    return net


def plain(net: ControlNet) -> Weights:
    """v1.1's .pth files, and stripped ones: the bare names."""
    return net.state_dict()


def prefixed(net: ControlNet) -> Weights:
    """v1.1's .safetensors files and extract_controlnet.py's: `control_model.` before each name."""
    return {f"control_model.{key}": value for key, value in net.state_dict().items()}


def whole_model(net: ControlNet) -> Weights:
    """v1.0's 5.7 GB files: the ControlNet in a whole checkpoint, here with a few tensors of the rest."""
    rest = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.ones(4, 4, 3, 3),
        "first_stage_model.decoder.conv_in.weight": torch.ones(4, 4, 3, 3),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "betas": torch.ones(1000),
    }
    return rest | prefixed(net)


def wrapped(net: ControlNet) -> Weights:
    """Saved from a data-parallel trainer."""
    return {f"module.{key}": value for key, value in net.state_dict().items()}


def diffusers(net: ControlNet) -> Weights:
    return to_diffusers(net.control_config, net.state_dict())


NAMINGS: dict[str, Callable[[ControlNet], Weights]] = {
    "plain": plain,
    "prefixed": prefixed,
    "whole model": whole_model,
    "module": wrapped,
    "diffusers": diffusers,
}


def write_safetensors(weights: Weights, folder: Path, name: str = "model") -> Path:
    path = folder / f"{name}.safetensors"
    save_file({key: value.clone().contiguous() for key, value in weights.items()}, path, metadata={"format": "pt"})
    return path


def write_pickle(weights: dict[str, Any], folder: Path, name: str = "model.pth", *, legacy: bool = False) -> Path:
    """`legacy`: the format before PyTorch 1.6, which cannot be mapped."""
    path = folder / name
    torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
    return path


WRITERS: dict[str, Callable[[Weights, Path], Path]] = {
    "safetensors": write_safetensors,
    "pth": write_pickle,
    "ckpt with state_dict": lambda weights, folder: write_pickle(
        {"state_dict": weights, "epoch": 3, "hyper_parameters": {"lr": 0.1}}, folder, "model.ckpt"
    ),
    "bin": lambda weights, folder: write_pickle(weights, folder, "diffusion_pytorch_model.bin"),
    "legacy pt": lambda weights, folder: write_pickle(weights, folder, "model.pt", legacy=True),
    "safetensors called pth": lambda weights, folder: write_safetensors(weights, folder).rename(folder / "model.pth"),
    "pth called safetensors": lambda weights, folder: write_pickle(weights, folder, "model.safetensors"),
}
