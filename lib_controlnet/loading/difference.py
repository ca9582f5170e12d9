"""Files that hold a ControlNet as the difference to the U-Net it was trained from."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..core.errors import BaseModelError
from .canonical import DIFFERENCE_KEY
from .lazy import outline
from .on_base import OnBase


def add_base(weights: Mapping[str, Tensor], base_unet_weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The ControlNet: differences plus the base, in canonical names (`base_unet_weights` without prefix).

    Sums are made in float32 when they are looked up. Layers that the file leaves out because they did not change come
    from the base; layers that the base does not have (hint encoder, zero convolutions) from the file. Raises
    `BaseModelError` where the shapes do not agree.
    """
    for key in weights:
        if key not in base_unet_weights:
            continue
        own, other = tuple(outline(weights, key).shape), tuple(base_unet_weights[key].shape)
        if math.prod(own) != math.prod(other):
            raise BaseModelError(
                "the control model holds differences to another kind of U-Net than the checkpoint's",
                field="model",
                found=f"{key}: {own} in the file, {other} in the base",
                remedy="load a checkpoint of the kind the control model was made for",
            )
    return _Sum(weights, base_unet_weights, (key for key in weights if key != DIFFERENCE_KEY))


class _Sum(OnBase):
    def made(self, key: str) -> Tensor:
        if key not in self._file:
            return self._base[key]
        difference = self._file[key]
        if key not in self._base:
            return difference
        base = self._base[key].to("cpu", torch.float32)
        return difference.float() + base.view(difference.shape)
