"""StyleAlign (arXiv 2312.02133) as sd-webui-controlnet has it: the pictures of a batch attend to one another.

As its scripts/hook.py (AutoMachine.StyleAlign): in every self-attention the rows of a U-Net call attend to the tokens
of all rows, those of the prompt among themselves and those of the negative prompt among themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lcm

import torch
from torch import Tensor

from ..core.sites import AttentionPatch, SiteCall, UNetSites
from .base import BoundControl, OwnControl


class StyleAlign(BoundControl):
    """`weight` says how far an attention's output goes from each picture's own to the shared one; 1 is the peer's."""

    obeys_mode = False
    spatial = False
    among_pictures = True

    def attach(self, sites: UNetSites) -> None:
        """Every self-attention."""
        for place in sites.attentions("attn1"):
            sites.attention(place, _Shared())


class _Shared(AttentionPatch):
    """A self-attention whose tokens also attend to those of the other rows of their class."""

    def further(self, call: SiteCall, tokens: Tensor) -> Tensor | None:
        """(B, M, C), as many for each row, which a softmax asks for.

        Where the classes differ in size (AND), both see each of their rows as often as makes them alike: to see all
        tokens twice is to see them once.
        """
        is_cond = call.step.is_cond
        classes = {kind: [row for row, cond in enumerate(is_cond) if cond is kind] for kind in (True, False)}
        times = lcm(*(len(rows) or 1 for rows in classes.values()))
        if times == 1:
            return None
        seen: list[int] = []
        for row, kind in enumerate(is_cond):
            rows = classes[kind] * (times // len(classes[kind]))
            rows.remove(row)  # once it is there already
            seen += rows
        shared = call.step.kept.of(tokens, seen)
        return shared.reshape(tokens.shape[0], -1, tokens.shape[2])

    def seen(self, call: SiteCall, output: Tensor, plain: Callable[[Sequence[int]], Tensor]) -> Tensor:
        if call.weight == 1.0:
            return output
        return torch.lerp(plain(range(output.shape[0])).to(output), output, call.weight)


EFFECT = OwnControl("style_align", lambda _hints, _settings: StyleAlign())
