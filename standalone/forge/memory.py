"""Memory management as extensions call it. Everything is on one device here: what was asked for is written down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from modules import devices


@dataclass(frozen=True)
class Loading:
    """One call of `load_models_gpu`: patchers, and the further bytes that must stay free."""

    models: tuple[Any, ...]
    memory_required: float
    further: dict[str, Any] = field(default_factory=dict)


loadings: list[Loading] = []
"""Newest last."""
KEPT = 100


def get_torch_device() -> torch.device:
    return devices.device


def unet_offload_device() -> torch.device:
    return devices.cpu


def get_free_memory(dev: Any = None, torch_free_too: bool = False) -> Any:
    """Bytes; with `torch_free_too` (all, of those within PyTorch)."""
    import psutil

    device = torch.device(dev) if dev is not None else devices.device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return (free, free) if torch_free_too else free


def soft_empty_cache(force: bool = False) -> None:
    devices.torch_gc()


def _load(models: Any, memory_required: float, further: dict[str, Any]) -> None:
    for patcher in models:
        patcher.model.to(patcher.load_device)
        patcher.current_device = patcher.load_device
    loadings.append(Loading(tuple(models), memory_required, further))
    del loadings[:-KEPT]


def forge_load(models: Any, memory_required: float = 0, hard_memory_preservation: float = 0) -> None:
    _load(models, memory_required, {"hard_memory_preservation": hard_memory_preservation})


def neo_load(
    models: Any,
    memory_required: float = 0,
    force_patch_weights: bool = False,
    minimum_memory_required: float | None = None,
    force_full_load: bool = False,
) -> None:
    _load(models, memory_required, {"minimum_memory_required": minimum_memory_required})


def classic_load(models: Any, memory_required: float = 0) -> None:
    _load(models, memory_required, {})


def forge_free(memory_required: float, device: Any, keep_loaded: Any = (), free_all: bool = False) -> None:
    """Nothing is ever unloaded here."""


def neo_free(memory_required: float, device: Any, keep_loaded: Any = ()) -> None:
    """Nothing is ever unloaded here."""


BY_VARIANT = {
    "forge": (forge_load, forge_free),
    "neo": (neo_load, neo_free),
    "reforge": (neo_load, neo_free),
    "classic": (classic_load, neo_free),
}
"""(load_models_gpu, free_memory) in each one's signature."""
