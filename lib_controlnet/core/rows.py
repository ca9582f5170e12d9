"""Rows of a batch picked out without making the processor wait for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RowTensors:
    """Row numbers, flags, strengths as tensors on their device, each made once and dropped with the pass it is for.

    Made from a Python list at every step, each would be a copy to the device that the processor waits for.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[type, tuple[float, ...], torch.device], Tensor] = {}

    def numbers(self, rows: Sequence[int], device: torch.device) -> Tensor:
        """(n,) int64."""
        return self._tensor(int, tuple(rows), torch.int64, device)

    def strengths(self, values: Sequence[float], device: torch.device) -> Tensor:
        """(n,) float32."""
        return self._tensor(float, tuple(values), torch.float32, device)

    def flags(self, flags: Sequence[bool], device: torch.device) -> Tensor:
        """(n,) bool."""
        return self._tensor(bool, tuple(flags), torch.bool, device)

    def of(self, tensor: Tensor, rows: Sequence[int]) -> Tensor:
        """The rows of `tensor` (B, ...) in order: a view where they adjoin, else a copy laid out like `tensor`."""
        even = _even(rows)
        if even is None:
            return tensor[self.numbers(rows, tensor.device)]
        # Copied where there are gaps: PyTorch computes some layers of a tensor with gaps in another way.
        return tensor[even] if even.step == 1 else tensor[even].clone()

    def put(self, tensor: Tensor, rows: Sequence[int], values: Tensor) -> None:
        """Writes `values` (n, ...) into those rows of `tensor` (B, ...)."""
        even = _even(rows)
        if even is None:
            tensor[self.numbers(rows, tensor.device)] = values
        else:
            tensor[even] = values

    def _tensor(self, kind: type, values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        key = (kind, values, device)
        if key not in self._kept:
            self._kept[key] = torch.tensor(values, dtype=dtype, device=device)
        return self._kept[key]


def _even(rows: Sequence[int]) -> slice | None:
    """The slice that picks `rows`, if they rise by equal distances."""
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    if step < 1 or any(rows[i + 1] - rows[i] != step for i in range(len(rows) - 1)):
        return None
    return slice(rows[0], rows[-1] + 1, step)
