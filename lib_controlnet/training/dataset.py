"""What the loop asks of a data set: encoded pictures, encoded prompts, control images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """`latents` (B, 4, h, w) as the U-Net sees them (scaled), `context` (B, N, D), `empty_context` (1, N, D) of the
    empty prompt, `hints` (B, 3, 8h, 8w) in 0..1, `y` (B, adm) where the U-Net takes it."""

    latents: Tensor
    context: Tensor
    empty_context: Tensor
    hints: Tensor
    y: Tensor | None = None


class ControlDataset(Protocol):
    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """The examples `indices` (B,); `generator` is the only source of chance, so a run can be repeated."""
        ...
