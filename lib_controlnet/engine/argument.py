"""Brings residuals to an LDM-layout U-Net that takes them as an argument (`control`), as those of the Forge family do.

The U-Net adds them where it adds its own host's, before whatever patches other extensions have put there. Its format is
ComfyUI's: `{"input": [...], "middle": [...], "output": [...]}`, from which it takes from the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from ..core.residuals import Residuals
from .injection import CallHooks, CallUnderWay, LdmUNet, PassControl, fitted

Lists = dict[str, list[Tensor | None]]


class ArgumentHooks(CallHooks):
    """Adds the residuals to those of the host's own, in the U-Net's argument."""

    def __init__(self, unet: nn.Module, control: PassControl) -> None:
        self._blocks = len(cast(LdmUNet, unet).input_blocks)
        self._scales = _scales(cast(LdmUNet, unet))
        super().__init__(unet, control)

    def _further(self, call: CallUnderWay, x: Tensor, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if call.control is None:
            return {}
        theirs = cast("Lists", kwargs.get("control") or {})
        ours = self._lists(call.control, x)
        call.lists = {place: _sums(ours[place], theirs.get(place) or []) for place in ours}
        rest = {place: values for place, values in theirs.items() if place not in ours}
        return {"control": {**rest, **call.lists}}

    def _left(self, call: CallUnderWay) -> list[str]:
        return [f"{place}, {len(values)} of them" for place, values in call.lists.items() if values]

    def _lists(self, control: Residuals, x: Tensor) -> Lists:
        """By place, in the order in which the U-Net takes from the end; None where nothing is added."""

        def at(place: str, index: int, scale: int) -> Tensor | None:
            residual = control.at(place, index)
            size = [-(-side // scale) for side in x.shape[2:]]
            return None if residual is None else fitted(residual, x, size)

        encoder = [at("encoder", index, self._scales[index]) for index in range(self._blocks)]
        skips = [at("skip", index, self._scales[index]) for index in range(self._blocks)]
        middle = at("middle", 0, self._scales[-1])
        lists: Lists = {"input": encoder[::-1], "middle": [middle], "output": skips}
        return {place: values for place, values in lists.items() if any(value is not None for value in values)}


def _sums(ours: list[Tensor | None], theirs: list[Tensor | None]) -> list[Tensor | None]:
    """Both, aligned at the end, from which the U-Net takes."""
    count = max(len(ours), len(theirs))
    pairs = zip(_padded(ours, count), _padded(theirs, count), strict=True)
    return [b if a is None else a if b is None else b + a.to(b) for a, b in pairs]


def _padded(values: list[Tensor | None], count: int) -> list[Tensor | None]:
    return [None] * (count - len(values)) + values


def _scales(unet: LdmUNet) -> list[int]:
    """By how much each input block's output is smaller than the latent."""
    scales: list[int] = []
    scale = 1
    for block in unet.input_blocks:
        scale *= 2 if _halves(block) else 1
        scales.append(scale)
    return scales


def _halves(block: nn.Module) -> bool:
    """Whether it has a downsampling layer: a convolution of stride 2, in no host by another way in these U-Nets."""
    return any(getattr(module, "stride", None) in (2, (2, 2)) for module in block.modules())
