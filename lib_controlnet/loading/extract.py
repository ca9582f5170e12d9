"""A ControlNet as a Control-LoRA: what it has beyond its base, in two thin factors a matrix (see low_rank)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor

from ..core.errors import BaseModelError
from .low_rank import MARK

_LEAST = 1e-30
"""Of a singular value's square: directions in which nothing changes give factors of 0, not of 0 / 0."""


def low_rank(
    control: Mapping[str, Tensor], base: Mapping[str, Tensor], rank: int, told: Callable[[float], None] = lambda _: None
) -> dict[str, Tensor]:
    """Of a ControlNet in canonical names and the U-Net of its base without prefix, on the processor; float32.

    A matrix with a counterpart in the base becomes `<layer>.up` @ `<layer>.down` of `rank` directions, the best ones in
    the least squares' sense (Eckart and Young 1936). It stays whole where that would not
    be smaller, and so does what has no counterpart; what is equal to the base's is left out, for absent means so.
    `told`: the part that is done, 0..1. Raises BaseModelError where the two do not belong together.
    """
    shared = [key for key in control if key in base]
    odd = [key for key in shared if control[key].shape != base[key].shape]
    if not shared or odd:
        raise BaseModelError(
            "the ControlNet was made for another kind of checkpoint",
            field="base",
            found=f"{odd[0]} has other sizes" if odd else "no layer of the same name",
            remedy="name the checkpoint that it was trained on",
        )
    made: dict[str, Tensor] = {MARK: torch.empty(0)}
    for done, key in enumerate(control):
        made |= _part(key, control[key].float(), base.get(key), rank)
        told((done + 1) / len(control))
    return made


def _part(key: str, own: Tensor, based: Tensor | None, rank: int) -> dict[str, Tensor]:
    if based is None:
        return {key: own}
    change = own - based.to("cpu", torch.float32)
    if not change.any():
        return {}
    if change.dim() < 2 or not key.endswith(".weight"):
        return {key: own}
    matrix = change.flatten(1)
    outs, ins = matrix.shape
    if rank * (outs + ins) >= outs * ins:
        return {key: own}
    up, down = _factors(matrix, rank)
    module = key.removesuffix(".weight")
    if change.dim() == 4:
        up, down = up[:, :, None, None], down.reshape(-1, *change.shape[1:])
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
