"""The device's memory in the Forge family, which its host manages by itself, and the true weights of its U-Net."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_MANAGERS = ("backend.memory_management", "ldm_patched.modules.model_management")


def manager() -> Any:
    """The host's module that moves models to the device and back; None where it has none that we know."""
    return next((found for name in _MANAGERS if (found := sys.modules.get(name)) is not None), None)


def is_short() -> bool:
    """Whether the host moves parts of the U-Net for want of memory."""
    return _state() in ("LOW_VRAM", "NO_VRAM")


def is_shortest() -> bool:
    """Whether it keeps as little on the device as it can."""
    return _state() == "NO_VRAM"


def _state() -> str:
    return str(getattr(getattr(manager(), "vram_state", None), "name", ""))


def reserve(unet: nn.Module, size: int, device: torch.device) -> None:
    """Makes room for `size` bytes; the U-Net that samples stays where it is."""
    host = manager()
    if host is None or device.type == "cpu" or not size:
        return
    loaded = list(getattr(host, "current_loaded_models", ()))
    keep = [one for one in loaded if getattr(getattr(one.model, "model", None), "diffusion_model", None) is unet]
    host.free_memory(size, device, keep_loaded=keep)


def true_weights(patcher: Any, unet: nn.Module) -> Mapping[str, Tensor]:
    """The state dict of the U-Net as the checkpoint has it: what a LoRA has changed lies in the patcher's backup."""
    weights: dict[str, Tensor] = dict(unet.state_dict())
    for holder in (patcher, getattr(patcher, "lora_loader", None)):
        for name, kept in dict(getattr(holder, "backup", None) or {}).items():
            own = str(name).removeprefix("diffusion_model.")
            kept = getattr(kept, "weight", kept)  # reForge keeps a tuple with it
            if own in weights and isinstance(kept, Tensor):
                weights[own] = kept
    return weights
