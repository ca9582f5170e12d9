"""Low-rank changes under kohya-ss's names (sd-scripts, networks/lora.py) under those of Stability's Control-LoRAs.

A module's name is LDM's, with dots or as `lora_unet_` and underscores; `alpha` over the rank scales a change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from .lazy import RenamedWeights

UP, DOWN, ALPHA = ".lora_up.weight", ".lora_down.weight", ".alpha"
_PREFIX = "lora_unet_"


def is_kohyas(keys: Collection[str]) -> bool:
    """Whether factors have kohya's names."""
    return any(key.endswith(DOWN) for key in keys)


def as_stabilitys(weights: Mapping[str, Tensor], base: Collection[str]) -> Mapping[str, Tensor]:
    """`weights` under Stability's names. `base`: names of the U-Net's tensors, by which underscores become dots."""
    if not is_kohyas(weights.keys()):
        return weights
    modules = {
        name.replace(".", "_"): name
        for name in (key.removesuffix(".weight") for key in base if key.endswith(".weight"))
    }
    names: dict[str, str] = {}
    alphas: dict[str, str] = {}
    for key in weights:
        kind = next((suffix for suffix in (UP, DOWN, ALPHA) if key.endswith(suffix)), "")
        if not kind:
            names[key] = key
            continue
        own = key.removesuffix(kind)
        module = modules.get(own.removeprefix(_PREFIX), own)
        if kind == ALPHA:
            alphas[f"{module}.up"] = key
        else:
            names[f"{module}.{'up' if kind == UP else 'down'}"] = key
    return _Scaled(weights, names, alphas)


class _Scaled(RenamedWeights):
    """`alphas`: by the name of an upper factor, the key of what scales it."""

    def __init__(self, source: Mapping[str, Tensor], names: Mapping[str, str], alphas: Mapping[str, str]) -> None:
        super().__init__(source, names)
        self._alphas = alphas
        self._file = source

    def __getitem__(self, key: str) -> Tensor:
        tensor = super().__getitem__(key)
        if key not in self._alphas:
            return tensor
        rank = tensor.shape[1]
        return tensor.float() * (float(self._file[self._alphas[key]]) / rank)
