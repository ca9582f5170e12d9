"""What is known of a device's memory, and how its end is told apart from other errors."""

from __future__ import annotations

import torch

MIB, GIB = 1 << 20, 1 << 30
_DECODING = 4400
"""Bytes a pixel of the picture that a VAE of SD takes in half precision while it decodes."""
_SIGNS = ("out of memory", "not enough gpu video memory", "can't allocate memory", "not enough memory")
"""By which the errors of CUDA, ROCm, MPS, DirectML and the CPU are known where they have no class of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an operation failed because memory was short: the device's, or the computer's."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that tensors may still take on `device`; None where that cannot be asked."""
    if device.type == "cuda" and torch.cuda.is_available():
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps" and torch.backends.mps.is_available() and hasattr(torch.mps, "recommended_max_memory"):
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return None


def total_bytes(device: torch.device) -> int | None:
    """Bytes that `device` has; None where that cannot be asked."""
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "mps" and torch.backends.mps.is_available() and hasattr(torch.mps, "recommended_max_memory"):
        return torch.mps.recommended_max_memory()
    return None


def is_short(device: torch.device, width: int, height: int) -> bool:
    """Whether decoding a picture of that size may need what control models hold of `device`."""
    free = free_bytes(device)
    return free is not None and free < _DECODING * width * height


def give_back(device: torch.device) -> None:
    """Memory that PyTorch keeps for later goes back to the device."""
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif device.type == "mps" and torch.backends.mps.is_available():
        torch.mps.empty_cache()


def in_words(size: int) -> str:
    """A number of bytes to be read."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / MIB:.1f} MiB"
