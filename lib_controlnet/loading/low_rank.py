"""A ControlNet as what must be added to another network's matrices, in two thin factors each.

Control-LoRA, on the base U-Net: Stability AI, 2023 (huggingface.co/stabilityai/control-lora); as ComfyUI reads it
(comfy/controlnet.py, ControlLora). CtrLoRA, on a ControlNet made for it: Xu et al. (arXiv:2410.09400).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import BaseModelError, ModelFileError
from .lazy import outline
from .on_base import OnBase

MARK = "lora_controlnet"
"""An empty tensor of this name says what the file is."""


@dataclass(frozen=True)
class Naming:
    """What stands behind a layer's name for the factors of its change; the file and what it changes, in words."""

    up: str
    down: str
    file: str
    base: str

    @property
    def factors(self) -> tuple[str, str]:
        """Both."""
        return self.up, self.down


STABILITY = Naming(".up", ".down", "the Control-LoRA", "the checkpoint's U-Net")
CTRLORA = Naming(".lora_layer.up.weight", ".lora_layer.down.weight", "the CtrLoRA", "the base ControlNet beside it")


def merge_base(
    weights: Mapping[str, Tensor], base_weights: Mapping[str, Tensor], naming: Naming = STABILITY
) -> Mapping[str, Tensor]:
    """The ControlNet in canonical names: W = W_base + up @ down where there are factors (`base_weights` without
    prefix), the file's own tensor where it has one whole, the base's otherwise.

    Sums are made in float32 when they are looked up. Raises `ModelFileError` for a factor without the other, and
    `BaseModelError` where the base has not the layer, or one of another shape.
    """
    for key in weights:
        if not key.endswith(naming.factors):
            continue
        module = key.removesuffix(naming.up).removesuffix(naming.down)
        if module + naming.up not in weights or module + naming.down not in weights:
            raise ModelFileError(
                f"{naming.file} is not whole",
                field="model",
                found=f"one of {module}{naming.up} and {module}{naming.down} without the other",
                remedy="download the file again",
            )
        own = _product_size(weights, module, naming)
        target = f"{module}.weight"
        other = math.prod(outline(base_weights, target).shape) if target in base_weights else 0
        if own != other:
            raise BaseModelError(
                f"{naming.file} was made for another network than {naming.base}",
                field="model",
                found=f"{target}: {own} numbers in the file, {other or 'no such layer'} in the base",
                remedy="load a checkpoint of the kind the control model was made for",
            )
    whole = (key for key in weights if key != MARK and not key.endswith(naming.factors))
    return _Merged(weights, base_weights, whole, naming)


def _product_size(weights: Mapping[str, Tensor], module: str, naming: Naming) -> int:
    up, down = (outline(weights, module + factor).shape for factor in naming.factors)
    return up[0] * math.prod(down[1:]) if up.numel() // up[0] == down[0] else -1


class _Merged(OnBase):
    def __init__(
        self, file: Mapping[str, Tensor], base: Mapping[str, Tensor], own: Iterable[str], naming: Naming
    ) -> None:
        super().__init__(file, base, own)
        self._factors = naming.factors

    def made(self, key: str) -> Tensor:
        if key in self._file:
            return self._file[key]
        module = key.removesuffix(".weight")
        if module + self._factors[0] not in self._file:
            return self._base[key]
        up, down = (self._file[module + factor].float().flatten(1) for factor in self._factors)
        base = self._base[key].to("cpu", torch.float32)
        return base + (up @ down).reshape(base.shape)
