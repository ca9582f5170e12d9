"""Norms of many tensors at once, on their device and without a wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The Euclidean norm of each, () float32; float16 is summed up wide, where its own range would not do."""
    if not tensors:
        return []
    if tensors[0].device.type in ("cpu", "cuda"):
        together = cast("Callable[..., Any]", torch._foreach_norm)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        if all(tensor.dtype == torch.float32 for tensor in tensors):
            return list(together(list(tensors), 2))
        try:
            return list(together(list(tensors), 2, dtype=torch.float32))
        except TypeError:  # a PyTorch that cannot sum up in another type than it was given
            pass
    return [tensor.float().square().sum().sqrt() for tensor in tensors]
