"""The attention of Segment Anything's encoder without all of its scores on a card at once.

ViT-B's are 0.8 GB, and there are three tensors of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

LARGEST_SCORES = 128 << 20
"""Bytes of float32 scores that are computed at once on a card."""


def in_parts(encoder: nn.Module, placed: Callable[..., Tensor]) -> None:
    """Let every attention of controlnet_aux's encoder compute some heads after the others where it is on a card.

    placed: the library's function that adds the relative positions to scores.
    """
    for module in encoder.modules():
        if hasattr(module, "rel_pos_h"):
            module.forward = partial(_attended, module, placed)


def _attended(layer: Any, placed: Callable[..., Tensor], x: Tensor) -> Tensor:
    """(B, H, W, C) to the same: each position's mean of all, weighted by how alike and how far they are."""
    batch, rows, columns, _ = x.shape
    count = rows * columns
    qkv = layer.qkv(x).reshape(batch, count, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.reshape(3, batch * layer.num_heads, count, -1).unbind(0)
    most = len(q) if _has_room(x) else max(LARGEST_SCORES // (4 * count * count), 1)
    found: list[Tensor] = []
    for start in range(0, len(q), most):
        some = slice(start, start + most)
        scores = (q[some] * layer.scale) @ k[some].transpose(-2, -1)
        scores = placed(scores, q[some], layer.rel_pos_h, layer.rel_pos_w, (rows, columns), (rows, columns))
        found.append(scores.softmax(dim=-1) @ v[some])
    mixed = torch.cat(found).view(batch, layer.num_heads, rows, columns, -1)
    return layer.proj(mixed.permute(0, 2, 3, 1, 4).reshape(batch, rows, columns, -1))


def _has_room(x: Tensor) -> bool:
    """The computer's memory holds all; a product of fewer matrices may round otherwise there."""
    return x.device.type == "cpu"
