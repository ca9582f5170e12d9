"""Autocast, under which hosts run their U-Net: in which type a layer computes, and how a network gets out of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor


def autocast_type(device: torch.device) -> torch.dtype | None:
    """The type in which layers on `device` compute now, whatever their weights are in; None without autocast."""
    kind = device.type
    try:
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    except (AttributeError, TypeError):  # PyTorch before 2.4 has functions of their own for each kind of device
        if kind == "cpu":
            return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
        return torch.get_autocast_gpu_dtype() if kind == "cuda" and torch.is_autocast_enabled() else None
    except RuntimeError:  # a kind of device that knows no autocast
        return None


def computed_in(tensor: Tensor) -> torch.dtype:
    """The type in which a linear layer takes `tensor`."""
    autocast = autocast_type(tensor.device)
    return tensor.dtype if autocast is None or tensor.dtype == torch.float64 else autocast


@contextmanager
def own_types(devices: Iterable[torch.device]) -> Generator[None, None, None]:
    """Inside, layers compute in the type of their weights and inputs, which must agree.

    Autocast takes every input of every layer for one of another type: norms widen it to float32, the next layer narrows
    it again, and each of that is a kernel of its own.
    """
    with ExitStack() as stack:
        for kind in {device.type for device in devices if autocast_type(device) is not None}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def types_of_now(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Gives the way back into the autocast of now, or out of it, for what is called from inside of `own_types`."""
    type_ = autocast_type(device)
    if type_ is None:
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=type_)
