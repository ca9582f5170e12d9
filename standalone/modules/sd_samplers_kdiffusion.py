"""Samplers of k-diffusion."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from modules import devices, sd_samplers_common, sd_schedulers, shared
from modules.k_diffusion_mount import external, sampling
from modules.script_callbacks import ExtraNoiseParams, extra_noise_callback
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from modules.sd_samplers_extra import restart_sampler
from torch import Tensor

KARRAS, EXPONENTIAL = {"scheduler": "karras"}, {"scheduler": "exponential"}
SECOND, BROWNIAN, ENSD = {"second_order": True}, {"brownian_noise": True}, {"uses_ensd": True}
DISCARD = {"discard_next_to_last_sigma": True}

samplers_k_diffusion: list[tuple[str, Any, list[str], dict[str, Any]]] = [
    ("DPM++ 2M", "sample_dpmpp_2m", ["k_dpmpp_2m"], KARRAS),
    ("DPM++ SDE", "sample_dpmpp_sde", ["k_dpmpp_sde"], {**KARRAS, **SECOND, **BROWNIAN}),
    ("DPM++ 2M SDE", "sample_dpmpp_2m_sde", ["k_dpmpp_2m_sde"], {**EXPONENTIAL, **BROWNIAN}),
    (
        "DPM++ 2M SDE Heun",
        "sample_dpmpp_2m_sde",
        ["k_dpmpp_2m_sde_heun"],
        {**EXPONENTIAL, **BROWNIAN, "solver_type": "heun"},
    ),
    ("DPM++ 2S a", "sample_dpmpp_2s_ancestral", ["k_dpmpp_2s_a"], {**KARRAS, **ENSD, **SECOND}),
    ("DPM++ 3M SDE", "sample_dpmpp_3m_sde", ["k_dpmpp_3m_sde"], {**EXPONENTIAL, **DISCARD, **BROWNIAN}),
    ("Euler a", "sample_euler_ancestral", ["k_euler_a", "k_euler_ancestral"], ENSD),
    ("Euler", "sample_euler", ["k_euler"], {}),
    ("LMS", "sample_lms", ["k_lms"], {}),
    ("Heun", "sample_heun", ["k_heun"], SECOND),
    ("DPM2", "sample_dpm_2", ["k_dpm_2"], {**KARRAS, **DISCARD, **SECOND}),
    ("DPM2 a", "sample_dpm_2_ancestral", ["k_dpm_2_a"], {**KARRAS, **DISCARD, **ENSD, **SECOND}),
    ("DPM fast", "sample_dpm_fast", ["k_dpm_fast"], ENSD),
    ("DPM adaptive", "sample_dpm_adaptive", ["k_dpm_ad"], ENSD),
    ("Restart", restart_sampler, ["restart"], {**KARRAS, **SECOND}),
]

CHURN = ["s_churn", "s_tmin", "s_tmax", "s_noise"]
sampler_extra_params: dict[Any, list[str]] = {
    "sample_euler": CHURN,
    "sample_heun": CHURN,
    "sample_dpm_2": CHURN,
    "sample_dpm_fast": ["s_noise"],
    "sample_dpm_2_ancestral": ["s_noise"],
    "sample_dpmpp_2s_ancestral": ["s_noise"],
    "sample_dpmpp_sde": ["s_noise"],
    "sample_dpmpp_2m_sde": ["s_noise"],
    "sample_dpmpp_3m_sde": ["s_noise"],
}


class CFGDenoiserKDiffusion(CFGDenoiser):
    """Guidance over k-diffusion's wrapper, which turns sigmas into timesteps."""

    def wrapped_model(self) -> Any:
        velocity = shared.sd_model.parameterization == "v"
        denoiser = external.CompVisVDenoiser if velocity else external.CompVisDenoiser
        return denoiser(shared.sd_model, quantize=shared.opts.enable_quantization)


class KDiffusionSampler(sd_samplers_common.Sampler):
    """`funcname` is one of k-diffusion's functions by name, or a function called as those are."""

    denoiser = CFGDenoiserKDiffusion

    def __init__(self, funcname: Any, sd_model: Any, options: dict[str, Any] | None = None) -> None:
        super().__init__(funcname)
        if not callable(funcname):
            self.func = getattr(sampling, funcname)
        self.options = options or {}
        self.extra_params = sampler_extra_params.get(funcname, [])

    def _scheduler(self, p: Any) -> sd_schedulers.Scheduler | None:
        name = (p.hr_scheduler if p.is_hr_pass else p.scheduler) or "Automatic"
        if name == "Automatic":
            name = self.config.options.get("scheduler", None)
        return sd_schedulers.schedulers_map.get(name)

    def get_sigmas(self, p: Any, steps: int) -> Tensor:
        """Sigmas of a whole schedule, float32 (steps + 1,), on the CPU."""
        discard = self.config.options.get("discard_next_to_last_sigma", False)
        if shared.opts.always_discard_next_to_last_sigma and not discard:
            discard = True
            p.extra_generation_params["Discard penultimate sigma"] = True
        steps += discard
        scheduler = self._scheduler(p)
        override = p.sampler_noise_scheduler_override
        if override or scheduler is None or scheduler.function is None:
            sigmas = (override or self.model_wrap.get_sigmas)(steps)
        else:
            sigmas = scheduler.function(n=steps, **self._scheduler_arguments(p, scheduler), device=devices.cpu)
        if discard:
            sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
        return sigmas.cpu()

    def _scheduler_arguments(self, p: Any, scheduler: sd_schedulers.Scheduler) -> dict[str, Any]:
        opts, extra = shared.opts, p.extra_generation_params
        low, high = self.model_wrap.sigmas[0].item(), self.model_wrap.sigmas[-1].item()
        limits = (0.1, 10) if opts.use_old_karras_scheduler_sigmas else (low, high)
        arguments: dict[str, Any] = {"sigma_min": limits[0], "sigma_max": limits[1]}
        if not p.is_hr_pass:
            extra["Schedule type"] = scheduler.label
        elif scheduler.label != extra.get("Schedule type"):
            extra["Hires schedule type"] = scheduler.label
        if opts.sigma_min != 0 and opts.sigma_min != low:
            arguments["sigma_min"] = extra["Schedule min sigma"] = opts.sigma_min
        if opts.sigma_max != 0 and opts.sigma_max != high:
            arguments["sigma_max"] = extra["Schedule max sigma"] = opts.sigma_max
        if scheduler.default_rho != -1 and opts.rho not in (0, scheduler.default_rho):
            arguments["rho"] = extra["Schedule rho"] = opts.rho
        if scheduler.need_inner_model:
            arguments["inner_model"] = self.model_wrap
        if scheduler.label == "Beta":
            extra["Beta schedule alpha"], extra["Beta schedule beta"] = opts.beta_dist_alpha, opts.beta_dist_beta
        return arguments

    def _noise_arguments(self, p: Any, x: Tensor, sigmas: Tensor) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self.config.options.get("brownian_noise", False):
            arguments["noise_sampler"] = self.create_noise_sampler(x, sigmas, p)
        if self.config.options.get("solver_type", None) == "heun":
            arguments["solver_type"] = "heun"
        return arguments

    def sample_img2img(
        self,
        p: Any,
        x: Tensor,
        noise: Tensor,
        conditioning: Any,
        unconditional_conditioning: Any,
        steps: int | None = None,
        image_conditioning: Any = None,
    ) -> Tensor:
        """Sample from latents x (B, C, h, w) with `noise` added as the denoising strength says."""
        steps, t_enc = sd_samplers_common.setup_img2img_steps(p, steps)
        sigmas = self.get_sigmas(p, steps)
        schedule = sigmas[steps - t_enc - 1 :]
        xi = x + noise * schedule[0]
        if shared.opts.img2img_extra_noise > 0:
            p.extra_generation_params["Extra noise"] = shared.opts.img2img_extra_noise
            params = ExtraNoiseParams(noise, x, xi)
            extra_noise_callback(params)
            xi = xi + params.noise * shared.opts.img2img_extra_noise
        kwargs = self.initialize(p)
        # the last sigma is 0, which DPM fast and adaptive cannot use
        values = {"sigma_min": schedule[-2], "sigma_max": schedule[0], "n": len(schedule) - 1, "sigmas": schedule}
        kwargs |= {k: v for k, v in values.items() if k in inspect.signature(self.func).parameters}
        kwargs |= self._noise_arguments(p, x, sigmas)
        self.model_wrap_cfg.init_latent = x
        self.last_latent = x
        return self.run(p, xi, t_enc + 1, (conditioning, unconditional_conditioning, image_conditioning), kwargs)

    def sample(
        self,
        p: Any,
        x: Tensor,
        conditioning: Any,
        unconditional_conditioning: Any,
        steps: int | None = None,
        image_conditioning: Any = None,
    ) -> Tensor:
        """Sample from noise x (B, C, h, w) of unit variance."""
        steps = int(steps or p.steps)
        sigmas = self.get_sigmas(p, steps)
        if shared.opts.sgm_noise_multiplier:
            p.extra_generation_params["SGM noise multiplier"] = True
            x = x * torch.sqrt(1.0 + sigmas[0] ** 2.0)
        else:
            x = x * sigmas[0]
        kwargs = self.initialize(p)
        model_sigmas = self.model_wrap.sigmas
        values = {
            "n": steps,
            "sigma_min": model_sigmas[0].item(),
            "sigma_max": model_sigmas[-1].item(),
            "sigmas": sigmas,
        }
        kwargs |= {k: v for k, v in values.items() if k in inspect.signature(self.func).parameters}
        kwargs |= self._noise_arguments(p, x, sigmas)
        self.last_latent = x
        return self.run(p, x, steps, (conditioning, unconditional_conditioning, image_conditioning), kwargs)


def _constructor(funcname: Any) -> Callable[[Any], KDiffusionSampler]:
    return lambda model: KDiffusionSampler(funcname, model)


samplers_data_k_diffusion = [
    sd_samplers_common.SamplerData(label, _constructor(funcname), aliases, options)
    for label, funcname, aliases, options in samplers_k_diffusion
    if callable(funcname) or hasattr(sampling, funcname)
]
