"""Control-LoRA: a ControlNet as what must be added to the base U-Net's matrices, in two thin factors each.

Stability AI, 2023 (huggingface.co/stabilityai/control-lora); as ComfyUI reads it (comfy/controlnet.py, ControlLora).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..core.errors import BaseModelError, ModelFileError
from .lazy import outline
from .on_base import OnBase

MARK = "lora_controlnet"
"""An empty tensor of this name says what the file is."""

_UP, _DOWN = ".up", ".down"


def merge_base(weights: Mapping[str, Tensor], base_unet_weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The ControlNet in canonical names: W = W_base + up @ down where there are factors (`base_unet_weights` without
    prefix), the file's own tensor where it has one whole, the base's otherwise.

    Sums are made in float32 when they are looked up. Raises `ModelFileError` for a factor without the other, and
    `BaseModelError` where the base has not the layer, or one of another shape.
    """
    for key in weights:
        if not key.endswith((_UP, _DOWN)):
            continue
        module = key.rpartition(".")[0]
        if module + _UP not in weights or module + _DOWN not in weights:
            raise ModelFileError(
                "the Control-LoRA is not whole",
                field="model",
                found=f"one of {module}{_UP} and {module}{_DOWN} without the other",
                remedy="download the file again",
            )
        own = _product_size(weights, module)
        target = f"{module}.weight"
        other = math.prod(base_unet_weights[target].shape) if target in base_unet_weights else 0
        if own != other:
            raise BaseModelError(
                "the Control-LoRA was made for another kind of U-Net than the checkpoint's",
                field="model",
                found=f"{target}: {own} numbers in the file, {other or 'no such layer'} in the base",
                remedy="load a checkpoint of the kind the control model was made for",
            )
    whole = (key for key in weights if key != MARK and not key.endswith((_UP, _DOWN)))
    return _Merged(weights, base_unet_weights, whole)


def _product_size(weights: Mapping[str, Tensor], module: str) -> int:
    up, down = outline(weights, module + _UP).shape, outline(weights, module + _DOWN).shape
    return up[0] * math.prod(down[1:]) if up.numel() // up[0] == down[0] else -1


class _Merged(OnBase):
    def made(self, key: str) -> Tensor:
        if key in self._file:
            return self._file[key]
        module = key.removesuffix(".weight")
        if module + _UP not in self._file:
            return self._base[key]
        up, down = (self._file[module + factor].float().flatten(1) for factor in (_UP, _DOWN))
        base = self._base[key].to("cpu", torch.float32)
        return base + (up @ down).reshape(base.shape)
