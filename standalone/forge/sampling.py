"""Samplers around the control objects: what is asked before and after a pass, and denoiser calls within it."""

from __future__ import annotations

from typing import Any

from modules import sd_samplers, sd_samplers_kdiffusion, sd_samplers_timesteps, shared
from modules.k_diffusion_mount import external
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from torch import Tensor

from standalone.forge import guidance, passes
from standalone.forge.replacing import replace
from standalone.forge.variants import Variant


def install(variant: Variant) -> None:
    _guide(variant)
    k_diffusion, timesteps = sd_samplers_kdiffusion, sd_samplers_timesteps
    for sampler in (k_diffusion.KDiffusionSampler, timesteps.CompVisSampler):
        for method in ("sample", "sample_img2img"):
            replace(sampler, method, _as_a_pass(variant))
    k_diffusion.CFGDenoiserKDiffusion.wrapped_model = _schedule
    timesteps.CFGDenoiserTimesteps.wrapped_model = _timesteps
    replace(timesteps.CompVisSampler, "__init__", _with_schedule_on_the_model)
    if variant.schedule_told:
        replace(k_diffusion.KDiffusionSampler, "get_sigmas", _telling_the_schedule)
    _only_samplers_of_this_family()


def _schedule(self: Any) -> Any:
    """What samplers ask for sigmas; denoiser calls go past it."""
    model = shared.sd_model
    schedule = model.forge_objects.unet.model.schedule
    made = external.DiscreteEpsDDPMDenoiser(model, _alphas(schedule), quantize=True)
    made.sigmas, made.log_sigmas = schedule.sigmas, schedule.log_sigmas
    return made


def _alphas(schedule: Any) -> Tensor:
    """alphas_cumprod (1000,) of sigmas."""
    return 1.0 / (schedule.sigmas**2 + 1.0)


def _timesteps(self: Any) -> Any:
    return sd_samplers_timesteps.CompVisTimestepsDenoiser(shared.sd_model)


def _guide(variant: Variant) -> None:
    def forward(
        self: Any,
        x: Tensor,
        sigma: Tensor,
        uncond: Any,
        cond: Any,
        cond_scale: float,
        s_min_uncond: float,
        image_cond: Any,
    ) -> Tensor:
        """Clean latents at sigmas; for samplers of timesteps, the noise at timesteps."""
        call = guidance.Call(variant, self, cond, uncond, cond_scale, s_min_uncond, image_cond)
        if not isinstance(self, sd_samplers_timesteps.CFGDenoiserTimesteps):
            return guidance.guided(call, x, sigma)
        sigmas = shared.sd_model.forge_objects.unet.model.schedule.sigmas
        real = sigmas[sigma.round().long().clip(0, len(sigmas) - 1)]
        noisy = x * ((real**2 + 1) ** 0.5)[:, None, None, None]
        return (noisy - guidance.guided(call, noisy, real)) / real[:, None, None, None]

    CFGDenoiser.forward = forward


def _as_a_pass(variant: Variant) -> Any:
    def made(sample: Any) -> Any:
        def sample_prepared(self: Any, p: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            patcher = shared.sd_model.forge_objects.unet
            passes.prepare(variant, patcher, x)
            samples = sample(self, p, x, *args, **kwargs)
            passes.cleanup(patcher)  # not reached after an error, as in these hosts
            return samples

        return sample_prepared

    return made


def _with_schedule_on_the_model(init: Any) -> Any:
    def with_schedule(self: Any, *args: Any) -> None:
        model = shared.sd_model
        if not hasattr(model, "alphas_cumprod"):
            model.alphas_cumprod = _alphas(model.forge_objects.unet.model.schedule)
        init(self, *args)

    return with_schedule


def _telling_the_schedule(get_sigmas: Any) -> Any:
    def told(self: Any, p: Any, steps: int) -> Tensor:
        sigmas = get_sigmas(self, p, steps)
        options = p.sd_model.forge_objects.unet.model_options
        options["transformer_options"]["sampling_sigmas"] = sigmas
        return sigmas

    return told


def _only_samplers_of_this_family() -> None:
    """LCM scales the model's output itself, which this layer does not."""
    sd_samplers.all_samplers[:] = [x for x in sd_samplers.all_samplers if x.name != "LCM"]
    sd_samplers.all_samplers_map.pop("LCM", None)
    sd_samplers.set_samplers()
