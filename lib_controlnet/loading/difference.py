"""Files that hold a ControlNet as the difference to the U-Net it was trained from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..core.errors import BaseModelError
from .canonical import DIFFERENCE_KEY
from .lazy import LazyWeights, outline

_COPIED = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")


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
    return _Sum(weights, base_unet_weights)


class _Sum(LazyWeights):
    fresh = False

    def __init__(self, differences: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
        self._differences = differences
        self._base = base
        unchanged = (key for key in base if key.startswith(_COPIED) and key not in differences)
        self._keys = dict.fromkeys([*(key for key in differences if key != DIFFERENCE_KEY), *unchanged])

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        if key not in self._differences:
            return self._base[key]
        difference = self._differences[key]
        if key not in self._base:
            return difference
        base = self._base[key].to("cpu", torch.float32)
        return difference.float() + base.view(difference.shape)

    def outline(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return outline(self._differences if key in self._differences else self._base, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys
