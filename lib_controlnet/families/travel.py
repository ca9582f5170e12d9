"""Pictures that act as prompts at the key frames of a film: what is heard between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..core.frames import Film

_ALIKE = 0.9995
"""Cosine above which the arc between two directions is a line."""


def travelled(tokens: Sequence[Tensor], film: Film) -> Sequence[Tensor]:
    """Tokens for each frame of a film, from those of its key frames.

    Before the first key frame and behind the last these are heard, between two what lies between them, as prompts
    travel in AnimateDiff (`animatediff_prompt.py`).
    """
    at = dict(sorted(zip(film.keys, tokens, strict=True)))
    made: list[Tensor] = []
    for frame in range(film.frames):
        before = max((key for key in at if key <= frame), default=min(at))
        after = min((key for key in at if key >= frame), default=max(at))
        share = (frame - before) / (after - before) if after > before else 0.0
        made.append(_between(at[before], at[after], share))
    return made


def _between(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The point of the arc between two tensors that lies at a share of its length."""
    if share == 0.0 or first is second:
        return first
    cosine = functional.cosine_similarity(first.flatten(), second.flatten(), dim=0)
    if bool(cosine.abs() > _ALIKE):
        return (1.0 - share) * first + share * second
    angle = torch.acos(cosine)
    return (torch.sin((1.0 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)
