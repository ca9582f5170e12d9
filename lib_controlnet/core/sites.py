"""Places in a U-Net where a control acts, by LDM name, whoever built the U-Net.

A family asks for places when a pass begins (`BoundControl.attach`) and says what is to happen there. What it is handed
when a U-Net call comes by are the rows in which its unit has a say, and what it gives back counts as far as the unit's
region mask says: range, rows, region and weight are decided by the session, for every kind of control alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .step import Step


@dataclass(frozen=True, eq=False)
class SiteCall:
    """A U-Net call as it comes by a place.

    step: of the rows in which the unit has a say, B of them. weight: of the place's layer, at this step; never 0.
    size: (h, w) of the features, or of those whose positions the tokens are; (0, 0) where there are none.
    """

    step: Step
    weight: float
    size: tuple[int, int]


FeaturePatch = Callable[[SiteCall, Tensor], Tensor]
"""Features (B, C, h, w), or tokens (B, N, C), -> the same, changed. The tensor given must not be written to."""

Watch = Callable[[Tensor], None]
"""Told of the features that pass in `prepare`'s plain call, all its rows."""


@dataclass(frozen=True)
class AttentionPlace:
    """An attention of a transformer block. block: "input_blocks.4.1.transformer_blocks.0". which: "attn1" or "attn2".

    channels: of its tokens. inner: of its queries, all heads together. context: of what it attends to.
    heads: how many.
    """

    block: str
    which: str
    channels: int
    inner: int
    context: int
    heads: int

    @property
    def name(self) -> str:
        """The attention's own LDM name."""
        return f"{self.block}.{self.which}"


class AttentionPatch:
    """What happens at one attention; what a kind does not override, it does not do."""

    def watched(self, tokens: Tensor) -> None:
        """The attention's input (B, N, C) in `prepare`'s plain call."""

    def further(self, call: SiteCall, tokens: Tensor) -> Tensor | None:
        """Tokens (B, M, C) to which the attention's own tokens (B, N, C) attend besides its own context, or None."""
        del call, tokens
        return None

    def seen(self, call: SiteCall, output: Tensor, plain: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """The attention's output (B, N, C), made with `further` tokens, changed; asked only where there are any.

        `plain(rows)` is what the attention gives for some rows of the call without further tokens.
        """
        del call, plain
        return output

    merged: Callable[[SiteCall, Tensor, Tensor], Tensor] | None = None
    """(call, queries (B, N, inner), what was attended to (B, N, inner)) -> the latter, changed, before `to_out`.

    Heads lie side by side in both. None: nothing happens there, and the queries need not be kept.
    """


class UNetSites(Protocol):
    """The places of one U-Net for one unit of a pass. The session undoes all that is asked for."""

    def attentions(self, which: str) -> Sequence[AttentionPlace]:
        """Every "attn1" (self-attention) or "attn2" (of the text), in the order in which they are computed."""
        ...

    def has(self, name: str) -> bool:
        """Whether the U-Net has a module of that LDM name ("input_blocks.4.0", "middle_block", "time_embed")."""
        ...

    def attention(self, place: AttentionPlace, patch: AttentionPatch, layer: int = 0) -> None:
        """`patch` acts at an attention. `layer`: whose layer weight it has, where the model takes layer weights."""
        ...

    def before(self, name: str, patch: FeaturePatch, layer: int = 0) -> None:
        """`patch` changes the first input of the module of that name: of a block, a layer in it or a Linear.

        An output block's is the trunk and the skip tensor side by side, (B, C + S, h, w).
        """
        ...

    def after(self, name: str, patch: FeaturePatch, layer: int = 0, watch: Watch | None = None) -> None:
        """`patch` changes what the module of that name gives; an input block's goes to its skip tensor too."""
        ...

    def added(self, name: str, patch: FeaturePatch, layer: int = 0, placeless: bool = False) -> None:
        """What `patch` makes of the first input of the module of that name is added to what the module gives.

        That is how a difference to a layer's weights acts (a LoRA): the weights themselves are never touched, so the
        U-Net stays what it is, and the difference counts for the unit's rows alone. placeless: the tokens are the
        prompt's, which lie nowhere in the picture; of a region mask its mean counts there.
        """
        ...
