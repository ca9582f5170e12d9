"""The file that comes out of a training: LDM names as in ControlNet 1.1's stripped files, half precision, metadata."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


def export_control(
    control: nn.Module, path: Path, metadata: Mapping[str, str], dtype: torch.dtype = torch.float16
) -> None:
    """Write `control`'s weights to `path` in one move, so that a killed run leaves the old file or the new one."""
    architecture = {"modelspec.architecture": "stable-diffusion-v1/controlnet"}
    write_weights(control.state_dict(), path, {**architecture, **metadata}, dtype)


def write_weights(
    weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str], dtype: torch.dtype = torch.float16
) -> None:
    """Floating-point weights are cast to `dtype`, others are kept."""
    cast = {
        key: (value.detach().cpu().to(dtype) if value.is_floating_point() else value.detach().cpu()).contiguous()
        for key, value in weights.items()
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.touch()
    usual_rights = partial.stat().st_mode  # safetensors makes files that only their owner may read
    save_file(cast, str(partial), metadata=dict(metadata))
    partial.chmod(usual_rights)
    os.replace(partial, path)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
