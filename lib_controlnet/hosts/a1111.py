"""AUTOMATIC1111 1.10 and hosts with its surface, as the embedded one: where its U-Net is, and how it samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..core.step import RowCursor
from ..engine.injection import PassControl, UNetHooks
from ..engine.session import ControlSession
from ..engine.sites import LdmSites
from ..families.base import Runtime
from ..nets.operations import layout_of
from .a1111_memory import is_rounded, is_short, is_shortest, keeps_fp8, reserve, true_weights
from .base import Hooks
from .webui.host import WebUIHost


class A1111Host(WebUIHost):
    """The U-Net is an LDM one that takes control from nobody: residuals are added by hooks on its blocks."""

    name = "AUTOMATIC1111"

    def found_network(self, model: Any) -> object:
        """Whatever the host's `model` has in the U-Net's place."""
        return getattr(getattr(model, "model", None), "diffusion_model", None)

    def precision(self, model: Any) -> str:
        """In what the weights of the host's `model` are held, where that is not the checkpoint's own."""
        del model
        return "fp8" if keeps_fp8() else ""

    def runtime(self, unet: nn.Module) -> Runtime:
        """Control models run where the host puts the task "controlnet", in the U-Net's dtype."""
        from modules import shared

        device, dtype = self.place()
        return Runtime(
            device,
            dtype,
            base_weights=partial(true_weights, unet),
            base_rounded=is_rounded(unet),
            keeps_fp8=keeps_fp8(),
            short=is_short(shared.sd_model),
            low_vram=is_shortest(shared.sd_model),
            reserve=reserve,
            layout=layout_of(unet),
        )

    def noise_schedule(self) -> tuple[Tensor, bool]:
        """Alphas' cumulative product (1000,), and whether the U-Net predicts v."""
        from modules import shared

        return shared.sd_model.alphas_cumprod, getattr(shared.sd_model, "parameterization", "eps") == "v"

    def join(self, p: Any, session: ControlSession) -> Callable[[], None]:
        """The host need not know."""
        del p, session
        return _nothing

    def hooks(self, unet: nn.Module, control: PassControl) -> Hooks:
        """Adds the residuals by hooks on the blocks."""
        return UNetHooks(unet, control)

    def sites(self, unet: nn.Module) -> LdmSites:
        """The places in its layers."""
        return LdmSites(unet)

    def rows(self, params: Any) -> RowCursor:
        """The rows of a denoiser step (`CFGDenoiserParams`), which the host orders conds first."""
        return RowCursor(cond_repeats(params), int(params.x.shape[0]))


def _nothing() -> None:
    """There is nothing to undo."""


def cond_repeats(params: Any) -> list[int]:
    """Cond rows of each picture in a denoiser step (`CFGDenoiserParams`): more than one with AND prompts."""
    conds, pictures = _rows(params.text_cond), _rows(params.text_uncond)
    if conds == pictures:
        return [1] * pictures
    sampler = getattr(params.denoiser, "sampler", None)
    batch = getattr(getattr(sampler, "sampler_extra_args", {}).get("cond"), "batch", None)
    repeats = [len(prompts) for prompts in batch] if batch is not None else []
    if sum(repeats) == conds:
        return repeats
    return [int(part) for part in np.diff(np.linspace(0, conds, max(pictures, 1) + 1).round())]


def _rows(cond: Any) -> int:
    """Rows of a text condition: a tensor, or SDXL's dict of tensors."""
    return int((cond["crossattn"] if isinstance(cond, dict) else cond).shape[0])
