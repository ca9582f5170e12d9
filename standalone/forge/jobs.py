"""Where a job puts its unpatched objects back, what it calls between passes, and when it has no negative prompt."""

from __future__ import annotations

from typing import Any

import torch
from modules import processing_loop
from modules.processing_base import StableDiffusionProcessing
from modules.processing_txt2img import StableDiffusionProcessingTxt2Img
from torch import Tensor

from standalone.forge.replacing import replace
from standalone.forge.variants import Variant


def unpatched(p: Any, objects: str = "forge_objects_after_applying_lora") -> None:
    """The job goes on with a fresh copy of these objects."""
    p.sd_model.forge_objects = getattr(p.sd_model, objects).shallow_copy()


def noise_of(p: Any, noise: Tensor) -> Tensor:
    """The noise that a script put into `p.modified_noise`, once."""
    modified, p.modified_noise = p.modified_noise, None
    return noise if modified is None else modified


def install(variant: Variant) -> None:
    processing_loop.without_gradients = torch.inference_mode
    replace(processing_loop, "tell_of_batch", _telling_of_batch)
    replace(StableDiffusionProcessing, "before_sampling", _before_sampling)
    hires = StableDiffusionProcessingTxt2Img
    hires.before_hr_sampling = _between_passes(variant)
    replace(hires, "init", _naming_hires_scale)
    if variant.uncond_dropped:
        replace(StableDiffusionProcessing, "setup_conds", _dropping("cfg_scale", "uc"))
        replace(hires, "calculate_hr_conds", _dropping("hr_cfg", "hr_uc"))


def _telling_of_batch(tell: Any) -> Any:
    def tell_of_batch(event: str, p: Any, n: int) -> None:
        first = event == "before_process_batch"
        unpatched(p, "forge_objects_original" if first else "forge_objects_after_applying_lora")
        tell(event, p, n)

    return tell_of_batch


def _before_sampling(tell: Any) -> Any:
    def before_sampling(self: Any, x: Tensor, noise: Tensor, c: Any, uc: Any) -> Tensor:
        unpatched(self)
        return noise_of(self, tell(self, x, noise, c, uc))

    return before_sampling


def _between_passes(variant: Variant) -> Any:
    def before_hr_sampling(self: Any, latents: Tensor, noise: Tensor) -> Tensor:
        known = {"x": latents, "noise": noise, "c": self.hr_c, "uc": self.hr_uc}
        for event in variant.hires:
            if event == "reset":
                unpatched(self)
            elif self.scripts is not None and event == "before_hr":
                self.scripts.before_hr(self)
            elif self.scripts is not None:
                self.scripts.process_before_every_sampling(self, **known)
        return noise_of(self, noise)

    return before_hr_sampling


def _naming_hires_scale(init: Any) -> Any:
    def with_scale(self: Any, *args: Any) -> None:
        init(self, *args)
        if self.enable_hr:
            self.extra_generation_params["Hires CFG Scale"] = self.hr_cfg

    return with_scale


def _dropping(scale: str, uncond: str) -> Any:
    """After conditions were made, `uncond` is None where `scale` is 1."""

    def made(setup: Any) -> Any:
        def setup_without(self: Any) -> None:
            setup(self)
            if getattr(self, scale) == 1:
                setattr(self, uncond, None)

        return setup_without

    return made
