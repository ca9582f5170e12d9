"""Samplers that step over DDPM timesteps instead of sigmas."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from modules import devices, sd_samplers_common, sd_samplers_timesteps_impl, shared
from modules.script_callbacks import ExtraNoiseParams, extra_noise_callback
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from torch import Tensor

samplers_timesteps: list[tuple[str, Callable[..., Tensor], list[str], dict[str, Any]]] = [
    ("DDIM", sd_samplers_timesteps_impl.ddim, ["ddim"], {}),
    ("DDIM CFG++", sd_samplers_timesteps_impl.ddim_cfgpp, ["ddim_cfgpp"], {}),
    ("PLMS", sd_samplers_timesteps_impl.plms, ["plms"], {}),
    ("UniPC", sd_samplers_timesteps_impl.unipc, ["unipc"], {}),
]


class CompVisTimestepsDenoiser(torch.nn.Module):
    """Noise prediction of the model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner_model = model

    def predicted(self, x: Tensor, timesteps: Tensor, **kwargs: Any) -> Tensor:
        """What the model itself predicts."""
        return self.inner_model.apply_model(x, timesteps, **kwargs)

    def forward(self, input: Tensor, timesteps: Tensor, **kwargs: Any) -> Tensor:
        return self.predicted(input, timesteps, **kwargs)


class CompVisTimestepsVDenoiser(CompVisTimestepsDenoiser):
    """Noise prediction from a model that predicts velocity."""

    def forward(self, input: Tensor, timesteps: Tensor, **kwargs: Any) -> Tensor:
        v = self.predicted(input, timesteps, **kwargs)
        alphas = self.inner_model.alphas_cumprod[timesteps.to(torch.int)][:, None, None, None]
        return alphas.sqrt() * v + (1 - alphas).sqrt() * input


class CFGDenoiserTimesteps(CFGDenoiser):
    """Guidance over noise predictions; inpainting blends before the model is called."""

    def __init__(self, sampler: Any) -> None:
        super().__init__(sampler)
        self.mask_before_denoising = True
        self.alphas = shared.sd_model.alphas_cumprod

    def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        alphas = self.alphas[sigma.to(dtype=torch.int)][:, None, None, None]
        return (x_in - (1 - alphas).sqrt() * x_out) / alphas.sqrt()

    def wrapped_model(self) -> Any:
        velocity = shared.sd_model.parameterization == "v"
        return (CompVisTimestepsVDenoiser if velocity else CompVisTimestepsDenoiser)(shared.sd_model)


class CompVisSampler(sd_samplers_common.Sampler):
    denoiser = CFGDenoiserTimesteps
    eta_option_field = "eta_ddim"
    eta_infotext_field = "Eta DDIM"
    eta_default = 0.0

    def __init__(self, funcname: Callable[..., Tensor], sd_model: Any) -> None:
        super().__init__(funcname)

    def get_timesteps(self, p: Any, steps: int) -> Tensor:
        """Timesteps in rising order: 1, 1 + 1000 // steps, ...; more than `steps` when it does not divide 1000."""
        discard = self.config.options.get("discard_next_to_last_sigma", False)
        if shared.opts.always_discard_next_to_last_sigma and not discard:
            discard = True
            p.extra_generation_params["Discard penultimate sigma"] = True
        stride = 1000 // (steps + discard)
        return torch.clip(torch.arange(0, 1000, stride, device=devices.device) + 1, 0, 999)

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
        timesteps = self.get_timesteps(p, steps)
        alpha = shared.sd_model.alphas_cumprod[timesteps[t_enc]]
        xi = x * torch.sqrt(alpha) + noise * torch.sqrt(1 - alpha)
        if shared.opts.img2img_extra_noise > 0:
            p.extra_generation_params["Extra noise"] = shared.opts.img2img_extra_noise
            params = ExtraNoiseParams(noise, x, xi)
            extra_noise_callback(params)
            xi = xi + params.noise * shared.opts.img2img_extra_noise * torch.sqrt(alpha)
        kwargs = self.initialize(p)
        values = {"timesteps": timesteps[:t_enc], "is_img2img": True}
        kwargs |= {k: v for k, v in values.items() if k in inspect.signature(self.func).parameters}
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
        timesteps = self.get_timesteps(p, steps)
        kwargs = self.initialize(p)
        if "timesteps" in inspect.signature(self.func).parameters:
            kwargs["timesteps"] = timesteps
        self.last_latent = x
        return self.run(p, x, steps, (conditioning, unconditional_conditioning, image_conditioning), kwargs)


def _constructor(function: Callable[..., Tensor]) -> Callable[[Any], CompVisSampler]:
    return lambda model: CompVisSampler(function, model)


samplers_data_timesteps = [
    sd_samplers_common.SamplerData(label, _constructor(function), aliases, options)
    for label, function, aliases, options in samplers_timesteps
]
