"""The files that come out of a training: safetensors and diffusers' folders, half precision, with metadata."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..loading.canonical import canonical
from ..nets.controlnet import ControlNet
from .errors import TrainingError
from .state import write_whole


def write_weights(
    weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str], dtype: torch.dtype | None = torch.float16
) -> None:
    """Floating-point weights are cast to `dtype`, others are kept; so are all with None."""
    cast = {
        key: (
            value.detach().cpu().to(dtype) if dtype is not None and value.is_floating_point() else value.detach().cpu()
        ).contiguous()
        for key, value in weights.items()
    }
    write_whole(path, lambda partial: save_file(cast, str(partial), metadata=dict(metadata)))


def export_diffusers(control: ControlNet, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `control` as a folder for diffusers' `ControlNetModel.from_pretrained`; whole or not at all.

    The networks' sizes are given to diffusers, and its own names are translated by the table with which such files are
    read. Raises TrainingError for SDXL models without attention, which diffusers has no name for.
    """
    from diffusers.models.controlnets.controlnet import ControlNetModel

    sizes = diffusers_sizes(control)
    with torch.device("meta"):
        model: Any = ControlNetModel(**sizes)
    names = {key: torch.empty(0) for key in model.state_dict()}
    write_folder(model, dict(zip(canonical(names), names, strict=True)), control.state_dict(), folder, dtype)


def write_folder(
    model: Any, names: Mapping[str, str], own: Mapping[str, Tensor], folder: Path, dtype: torch.dtype = torch.float16
) -> None:
    """diffusers' `model`, which has no content yet, with the weights `own` as a folder; whole or not at all.

    `names`: diffusers' by ours. Raises TrainingError where they do not fit, or where the disk refuses.
    """
    if set(names) != set(own):
        odd = sorted(set(names) ^ set(own))
        raise TrainingError("diffusers has no network of this structure", field="output.formats",
                            found=", ".join(odd[:3]), remedy='use the format "v1.1"')  # fmt: skip
    model.load_state_dict({names[key]: _as_shaped(value, model, names[key], dtype) for key, value in own.items()},
                          assign=True)  # fmt: skip
    partial, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        model.save_pretrained(str(partial), safe_serialization=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
    except OSError as error:
        raise TrainingError(f'"{folder}" cannot be written', field="output", found=str(error)) from error
    finally:
        shutil.rmtree(old, ignore_errors=True)


def diffusers_sizes(control: ControlNet) -> dict[str, Any]:
    """Arguments of diffusers' ControlNetModel for a network of these sizes."""
    config = control.control_config.unet
    widths = tuple(mult * config.model_channels for mult in config.channel_mult)
    sizes: dict[str, Any] = {
        "in_channels": config.in_channels,
        "conditioning_channels": control.control_config.hint_channels,
        "conditioning_embedding_out_channels": control.control_config.hint_widths,
        "block_out_channels": widths,
        "layers_per_block": config.num_res_blocks,
        "down_block_types": tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in config.transformer_depth),
        # The last entry is also the middle's; where a level has no attention its number is not read.
        "transformer_layers_per_block": (*[max(d, 1) for d in config.transformer_depth[:-1]], config.middle_depth),
        "cross_attention_dim": config.context_dim,
        # diffusers' name for the number of heads, kept wrong for compatibility.
        "attention_head_dim": tuple(config.heads(width) for width in widths),
        "use_linear_projection": config.use_linear,
        "norm_num_groups": config.groups,
    }
    if config.adm_channels is not None:
        sizes |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": config.adm_channels,
        }
    return sizes


def _as_shaped(value: Tensor, model: Any, name: str, dtype: torch.dtype) -> Tensor:
    """`value` in the shape of the parameter: matrices and 1x1 convolutions hold the same numbers."""
    shape = model.get_parameter(name).shape
    return value.detach().cpu().to(dtype).reshape(shape).contiguous()


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
