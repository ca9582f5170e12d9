"""Residuals of one U-Net call, as data: scaled, masked, pooled and merged before a host adds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

import torch
from torch import Tensor
from torch.nn import functional

from .errors import HostError
from .rows import RowTensors

Places = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Residuals:
    """What one or several control models add to one U-Net call; index = input block.

    encoder[i]: added to the output of input_blocks[i] (trunk and skip; T2I-Adapter).
    skip[i]:    added to the skip tensor of input_blocks[i] when the decoder uses it (ControlNet, arXiv 2302.05543).
    middle:     added to the output of middle_block.
    Each is `(B, C_i, h_i, w_i)` in the control model's dtype, `(B, C_i, 1, 1)` when pooled, or None.
    The tensors belong to whoever made them and are never changed in place.
    """

    encoder: Places = ()
    skip: Places = ()
    middle: Tensor | None = None

    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors in the order of layer weights: encoder, skip, middle."""
        return tuple(t for t in (*self.encoder, *self.skip, self.middle) if t is not None)

    def places(self) -> list[tuple[str, int]]:
        """Where the outputs go, as `at` takes it: ("encoder" or "skip", input block) and ("middle", 0)."""
        named = (("encoder", self.encoder), ("skip", self.skip), ("middle", (self.middle,)))
        return [(name, index) for name, part in named for index, tensor in enumerate(part) if tensor is not None]

    def at(self, place: str, index: int) -> Tensor | None:
        """What is added at a place, if anything."""
        part = {"encoder": self.encoder, "skip": self.skip, "middle": (self.middle,)}[place]
        return part[index] if index < len(part) else None

    def scaled(self, weights: Sequence[float]) -> Residuals:
        """Every output times its own layer weight (order of `outputs`)."""
        if len(weights) != len(self.outputs()):
            raise ValueError(f"{len(weights)} layer weights for {len(self.outputs())} outputs")
        queue = iter(weights)
        return self.changed(lambda t: _times(t, next(queue)))

    def masked(self, mask: RegionMask) -> Residuals:
        """Every output times the region mask, stretched to its size."""
        return self.changed(lambda t: t * mask.at(t))

    def times(self, strengths: Tensor) -> Residuals:
        """Every row of every output times its own of `strengths` (B,)."""
        return self.changed(lambda t: (t * strengths.to(t.device)[:, None, None, None]).to(t.dtype))

    def pooled(self) -> Residuals:
        """Every output averaged over its positions, `(B, C, 1, 1)` (cldm's `global_average_pooling`)."""
        return self.changed(lambda t: t.mean(dim=(2, 3), keepdim=True))

    def spread(self, rows: Sequence[int], batch: int, kept: RowTensors | None = None) -> Residuals:
        """Outputs computed for some `rows` only, put back into a batch whose other rows get nothing."""
        if len(rows) == batch:
            return self
        owner = RowTensors() if kept is None else kept

        def put(part: Tensor) -> Tensor:
            whole = part.new_zeros((batch, *part.shape[1:]))
            owner.put(whole, rows, part)
            return whole

        return self.changed(put)

    def merged(self, other: Residuals) -> Residuals:
        """The sum of both controls."""
        return Residuals(
            encoder=tuple(_plus(a, b) for a, b in zip_longest(self.encoder, other.encoder)),
            skip=tuple(_plus(a, b) for a, b in zip_longest(self.skip, other.skip)),
            middle=_plus(self.middle, other.middle),
        )

    def changed(self, change: Callable[[Tensor], Tensor]) -> Residuals:
        """A control whose outputs are `change(output)`, called in the order of `outputs`."""

        def each(residuals: Places) -> Places:
            return tuple(None if t is None else change(t) for t in residuals)

        encoder, skip = each(self.encoder), each(self.skip)
        return Residuals(encoder, skip, None if self.middle is None else change(self.middle))


class RegionMask:
    """Where in the picture a unit acts: `(1, 1, H, W)` float 0..1, stretched bilinearly to any feature size."""

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask
        self._sizes: dict[tuple[int, int, torch.dtype, torch.device], Tensor] = {}

    @property
    def empty(self) -> bool:
        """The unit acts nowhere."""
        return not bool(self._mask.any())

    @cached_property
    def mean(self) -> float:
        """How much of the picture it is: what counts for what has no place in it."""
        return float(self._mask.mean())

    def at(self, features: Tensor) -> Tensor:
        """The mask at the size, dtype and device of `features` `(B, C, h, w)`; computed once a size."""
        return self._resized((int(features.shape[2]), int(features.shape[3])), features)

    def of_tokens(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """The mask (1, N, 1) of `tokens` (B, N, C), which are the positions of a picture of `size` (h, w).

        Raises HostError where they are not as many.
        """
        if tokens.shape[1] != size[0] * size[1]:
            raise HostError(
                "a layer of the U-Net has not one token for each position, so that the region mask does not fit",
                field="effective_region_mask",
                found=f"{tokens.shape[1]} tokens at {size[1]}x{size[0]}",
                remedy="switch off what merges tokens (such as Token Merging), or remove the mask",
            )
        return self._resized(size, tokens).flatten(2).transpose(1, 2)

    def _resized(self, size: tuple[int, int], like: Tensor) -> Tensor:
        key = (*size, like.dtype, like.device)
        if key not in self._sizes:
            resized = functional.interpolate(self._mask, size, mode="bilinear", align_corners=False)
            self._sizes[key] = resized.to(like)
        return self._sizes[key]


def _times(tensor: Tensor, weight: float) -> Tensor:
    return tensor if weight == 1.0 else tensor * weight


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
