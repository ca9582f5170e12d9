"""What the loop asks of a data set: encoded pictures, encoded prompts, control images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """`latents` (B, 4, h, w) as the U-Net sees them (scaled), `context` (B, N, D), `empty_context` (1, N, D) of the
    empty prompt, `hints` (B, 3, 8h, 8w) in 0..1. Where the U-Net takes it: `y` (B, adm), and `empty_y` (B, adm), which
    is that of the empty prompt at the same sizes."""

    latents: Tensor
    context: Tensor
    empty_context: Tensor
    hints: Tensor
    y: Tensor | None = None
    empty_y: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        parts = (self.latents, self.context, self.empty_context, self.hints, self.y, self.empty_y)
        return Batch(*(part if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]


class ControlDataset(Protocol):
    @property
    def groups(self) -> Sequence[Sequence[int]]:
        """The examples by size: those of one group can be in one batch, and every example is in one group."""
        ...

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """The examples `indices` (B,); `generator` is the only source of chance, so a run can be repeated."""
        ...
