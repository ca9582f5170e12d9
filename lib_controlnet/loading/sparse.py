"""Names of SparseCtrl files: their layers over time, and their hint encoders, under one naming."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .lazy import RenamedWeights

_LEVEL = 3
"""Input blocks a level: two with layers over time, one that halves."""
_MODULE = re.compile(r"down_blocks\.(\d+)\.motion_modules\.(\d+)\.(?:temporal_transformer\.)?(.+)")
_PARTS = (
    ("attention_blocks.0.pos_encoder.pe", "pos_embed.pe"),
    ("attn1.pos_encoder.pe", "pos_embed.pe"),
    ("attention_blocks.0.", "attn1."),
    ("norms.0.", "norm1."),
    ("ff_norm.", "norm3."),
)
"""AnimateDiff's names and diffusers'."""
_HINT = re.compile(r"input_hint_block\.0\.(conv_in|conv_out|blocks\.(\d+))\.(weight|bias)")


def sparse_names(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`weights` with `input_blocks.N.motion.*` and `input_hint_block.N.*`."""
    count = max((int(match[2]) for key in weights if (match := _HINT.fullmatch(key)) and match[2]), default=-1) + 1
    return RenamedWeights(weights, {_named(key, count): key for key in weights})


def _named(key: str, hints: int) -> str:
    if match := _MODULE.fullmatch(key):
        rest = match[3]
        for theirs, ours in _PARTS:
            rest = rest.replace(theirs, ours)
        return f"input_blocks.{_LEVEL * int(match[1]) + int(match[2]) + 1}.motion.{rest}"
    if match := _HINT.fullmatch(key):
        number = {"conv_in": 0, "conv_out": 2 * hints + 2}.get(match[1])
        return f"input_hint_block.{2 * int(match[2]) + 2 if number is None else number}.{match[3]}"
    return key
