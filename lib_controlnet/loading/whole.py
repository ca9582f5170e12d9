"""The parts of a whole checkpoint's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..core.errors import ModelFileError
from .lazy import RenamedWeights

UNET, VAE = "model.diffusion_model.", "first_stage_model."


def below(weights: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """The weights whose names begin with `prefix`, without it."""
    return RenamedWeights(weights, {key[len(prefix) :]: key for key in weights if key.startswith(prefix)})


def unet_of(weights: Mapping[str, Tensor], path: Path, field: str) -> Mapping[str, Tensor]:
    """The U-Net of the checkpoint at `path`. Raises ModelFileError, naming `field`, where it is no whole one."""
    found = below(weights, UNET)
    if "input_blocks.0.0.weight" in found:
        return found
    raise ModelFileError(
        f'"{path.name}" is no whole Stable Diffusion checkpoint',
        field=field,
        found=f"no {UNET}input_blocks.0.0.weight",
        remedy="choose the file of an SD 1.x, SD 2.x or SDXL model",
    )
