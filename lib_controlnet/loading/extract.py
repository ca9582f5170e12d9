"""A ControlNet as a Control-LoRA: what it has beyond its base, in two thin factors a matrix (see low_rank)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor

from ..core.errors import BaseModelError
from .low_rank import MARK

_LEAST = 1e-30
"""Of a singular value's square: directions in which nothing changes give factors of 0, not of 0 / 0."""


Told = Callable[[float], None]
"""Told the part that is done, 0..1."""
Ranks = Mapping[str, int]
"""Directions of each matrix, by its key; one that is not there has none."""


def low_rank(
    control: Mapping[str, Tensor], base: Mapping[str, Tensor], rank: int | Ranks, told: Told = lambda _: None
) -> dict[str, Tensor]:
    """Of a ControlNet in canonical names and the U-Net of its base without prefix, on the processor; float32.

    A matrix with a counterpart in the base becomes `<layer>.up` @ `<layer>.down` of `rank` directions, the best ones in
    the least squares' sense (Eckart and Young 1936). It stays whole where that would not
    be smaller, and so does what has no counterpart; what is equal to the base's, or has no directions, is left out, for
    absent means so. Raises BaseModelError where the two do not belong together.
    """
    _check(control, base)
    made: dict[str, Tensor] = {MARK: torch.empty(0)}
    for done, key in enumerate(control):
        own_rank = rank if isinstance(rank, int) else rank.get(key, 0)
        made |= _part(key, control[key].float(), base.get(key), own_rank)
        told((done + 1) / len(control))
    return made


def ranks_within(
    control: Mapping[str, Tensor], base: Mapping[str, Tensor], numbers: int, told: Told = lambda _: None
) -> dict[str, int]:
    """How many directions of each matrix to keep so that all factors have `numbers` numbers and lose least.

    A direction is worth the square of its singular value (what leaving it out adds to the squared error of the
    weights) for each number that it costs; the best are taken first. Raises as `low_rank`.
    """
    _check(control, base)
    worth: list[tuple[float, int, str]] = []
    for done, key in enumerate(control):
        change = _change(key, control[key].float(), base.get(key))
        if change is not None:
            outs, ins = change.shape
            values = cast("Tensor", torch.linalg.svdvals(change.double()))  # pyright: ignore[reportUnknownMemberType]
            squares = [float(value) ** 2 for value in values[: (outs * ins - 1) // (outs + ins)]]
            worth += [(square / (outs + ins), outs + ins, key) for square in squares if square > _LEAST]
        told((done + 1) / len(control))
    ranks, left = Counter[str](), numbers
    for _, cost, key in sorted(worth, reverse=True):
        if cost > left:
            break
        ranks[key] += 1
        left -= cost
    return dict(ranks)


def _check(control: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    shared = [key for key in control if key in base]
    odd = [key for key in shared if control[key].shape != base[key].shape]
    if not shared or odd:
        raise BaseModelError(
            "the ControlNet was made for another kind of checkpoint",
            field="base",
            found=f"{odd[0]} has other sizes" if odd else "no layer of the same name",
            remedy="name the checkpoint that it was trained on",
        )


def _change(key: str, own: Tensor, based: Tensor | None) -> Tensor | None:
    """The matrix (out, in) that is to be factors; None for what is none, or the base's."""
    if based is None or own.dim() < 2 or not key.endswith(".weight"):
        return None
    change = own - based.to("cpu", torch.float32)
    return change.flatten(1) if change.any() else None


def _part(key: str, own: Tensor, based: Tensor | None, rank: int) -> dict[str, Tensor]:
    matrix = _change(key, own, based)
    if matrix is None:
        return {} if based is not None and torch.equal(own, based.to("cpu", torch.float32)) else {key: own}
    outs, ins = matrix.shape
    if rank * (outs + ins) >= outs * ins:
        return {key: own}
    if not rank:
        return {}
    up, down = _factors(matrix, rank)
    module = key.removesuffix(".weight")
    if own.dim() == 4:
        up, down = up[:, :, None, None], down.reshape(-1, *own.shape[1:])
    return {f"{module}.up": up.contiguous(), f"{module}.down": down.contiguous()}


def _factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(out, r) and (r, in), between which the singular values are shared alike: half precision bears both."""
    if matrix.shape[0] > matrix.shape[1]:
        down, up = _factors(matrix.T, rank)
        return up.T, down.T
    product = matrix.double() @ matrix.T.double()
    squares, directions = cast("tuple[Tensor, Tensor]", torch.linalg.eigh(product))  # pyright: ignore[reportUnknownMemberType]
    root = squares[-rank:].clamp(min=_LEAST).sqrt().sqrt()
    kept = directions[:, -rank:]
    return (kept * root).float(), (kept.T @ matrix.double() / root[:, None]).float()
