"""What all samplers share: interrupts, VAE calls, previews, the base class."""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from modules import devices, images, sd_models, shared
from modules.k_diffusion_mount import sampling as k_sampling
from PIL import Image
from torch import Tensor

SamplerDataTuple = namedtuple("SamplerData", ["name", "constructor", "aliases", "options"])

approximation_indexes = {"Full": 0}


class InterruptedException(BaseException):
    """Ends sampling; a BaseException, so that no `except Exception` on the way keeps it."""


class TorchHijack:
    """`torch` as k-diffusion sees it: `randn_like` gives the noise of the job's images."""

    def __init__(self, p: Any) -> None:
        self.rng = p.rng

    def randn_like(self, x: Tensor) -> Tensor:
        return self.rng.next()

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class SamplerData(SamplerDataTuple):
    def total_steps(self, steps: int) -> int:
        """Expected denoiser calls."""
        return steps * 2 if self.options.get("second_order", False) else steps


def setup_img2img_steps(p: Any, steps: int | None = None) -> tuple[int, int]:
    """(steps of the whole schedule, index at which sampling starts, counted from the end)."""
    if not shared.opts.img2img_fix_steps and steps is None:
        return p.steps, int(min(p.denoising_strength, 0.999) * p.steps)
    requested = steps or p.steps
    whole = int(requested / min(p.denoising_strength, 0.999)) if p.denoising_strength > 0 else 0
    return whole, requested - 1


def samples_to_images_tensor(sample: Tensor, approximation: int | None = None, model: Any = None) -> Tensor:
    """Pictures (B, 3, H, W) about -1..1 of latents (B, 4, h, w)."""
    model = model or shared.sd_model
    with torch.no_grad(), devices.without_autocast():
        return model.decode_first_stage(sample.to(devices.dtype_vae))


def decode_first_stage(model: Any, x: Tensor) -> Tensor:
    return samples_to_images_tensor(x.to(devices.dtype_vae), 0, model)


def single_sample_to_image(sample: Tensor, approximation: int | None = None) -> Image.Image:
    picture = samples_to_images_tensor(sample.unsqueeze(0), approximation)[0] * 0.5 + 0.5
    array = 255.0 * np.moveaxis(torch.clamp(picture, 0.0, 1.0).float().cpu().numpy(), 0, 2)
    return Image.fromarray(array.astype(np.uint8))


def sample_to_image(samples: Tensor, index: int = 0, approximation: int | None = None) -> Image.Image:
    return single_sample_to_image(samples[index], approximation)


def samples_to_image_grid(samples: Tensor, approximation: int | None = None) -> Image.Image:
    return images.image_grid([single_sample_to_image(x, approximation) for x in samples])


def images_tensor_to_samples(image: Tensor, approximation: int | None = None, model: Any = None) -> Tensor:
    """Scaled latents (B, 4, h, w), sampled, of pictures (B, 3, H, W) in 0..1; encoded one by one."""
    model = model or shared.sd_model
    image = image.to(shared.device, dtype=devices.dtype_vae) * 2 - 1
    rows = [model.get_first_stage_encoding(model.encode_first_stage(x.unsqueeze(0))) for x in image]
    return torch.cat(rows)


def store_latent(decoded: Tensor) -> None:
    """Keep the latest guess of the picture for the live preview."""
    shared.state.current_latent = decoded


def is_sampler_using_eta_noise_seed_delta(p: Any) -> bool:
    from modules import sd_samplers

    config = sd_samplers.find_sampler_config(p.sampler_name)
    eta = p.eta if p.eta is not None else getattr(p.sampler, "eta", None)
    if eta is None and config is not None:
        eta = 0 if config.options.get("default_eta_is_0", False) else 1.0
    return eta != 0 and config is not None and config.options.get("uses_ensd", False)


def _is_wrong_pass(p: Any) -> bool:
    if not getattr(p, "enable_hr", False):
        return False
    wanted = shared.opts.hires_fix_refiner_pass
    if wanted != "second pass":
        p.extra_generation_params["Hires refiner"] = wanted
    return wanted == ("first pass" if p.is_hr_pass else "second pass")


def apply_refiner(cfg_denoiser: Any, sigma: Tensor | None = None) -> bool:
    """Swap to the refiner checkpoint once sampling has come far enough; True when conds were made anew."""
    p = cfg_denoiser.p
    info, switch_at = p.refiner_checkpoint_info, p.refiner_switch_at
    if info is None or shared.sd_model.sd_checkpoint_info is info:
        return False
    by_steps = shared.opts.refiner_switch_by_sample_steps or sigma is None
    if by_steps:
        ratio = cfg_denoiser.step / cfg_denoiser.total_steps
    else:
        sigmas = getattr(cfg_denoiser.inner_model, "sigmas", None)
        top = torch.max(sigma)  # type: ignore[arg-type]
        timestep = top.to(torch.int64) if sigmas is None else torch.argmin(torch.abs(sigmas.to(top.device) - top))
        ratio = float(999 - timestep) / 1000
    if (switch_at is not None and ratio < switch_at) or _is_wrong_pass(p):
        return False
    if by_steps:
        p.extra_generation_params["Refiner switch by sampling steps"] = True
    p.extra_generation_params["Refiner"] = info.short_title
    p.extra_generation_params["Refiner switch at"] = switch_at
    with sd_models.SkipWritingToConfig():
        sd_models.reload_model_weights(info=info)
    devices.torch_gc()
    p.setup_conds()
    cfg_denoiser.update_inner_model()
    return True


class Sampler:
    """One sampler of one job (or pass). `model_wrap_cfg` is the CFG denoiser."""

    eta_option_field = "eta_ancestral"
    eta_infotext_field = "Eta"
    eta_default = 1.0

    denoiser: Callable[[Any], Any] | None = None  # makes its CFGDenoiser
    model_wrap: Any = None
    model_wrap_cfg: Any = None
    config: SamplerData  # set by create_sampler
    p: Any = None
    last_latent: Any = None
    stop_at: int | None = None
    eta: float | None = None
    s_min_uncond: float | None = None
    s_churn, s_tmin, s_tmax, s_noise = 0.0, 0.0, float("inf"), 1.0

    def __init__(self, funcname: Any) -> None:
        self.func: Any = funcname
        self.funcname = funcname
        self.conditioning_key = shared.sd_model.conditioning_key
        self.extra_params: list[str] = []
        self.sampler_extra_args: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        if self.denoiser is not None:
            self.model_wrap_cfg = self.denoiser(self)
            self.model_wrap = self.model_wrap_cfg.inner_model

    def callback_state(self, d: dict[str, Any]) -> None:
        """Called by the sampling function after each step."""
        if self.stop_at is not None and d["i"] > self.stop_at:
            raise InterruptedException
        shared.state.sampling_step = d["i"]
        shared.total_tqdm.update()

    def launch_sampling(self, steps: int, func: Callable[[], Tensor]) -> Tensor:
        """Run; an interrupt gives the last known picture."""
        denoiser, state = self.model_wrap_cfg, shared.state
        denoiser.steps, denoiser.total_steps = steps, self.config.total_steps(steps)
        state.sampling_steps, state.sampling_step = steps, 0
        try:
            return func()
        except InterruptedException:
            return self.last_latent

    def initialize(self, p: Any) -> dict[str, Any]:
        """Bind to a job; returns the sampling function's arguments eta and s_*."""
        self.p = p
        cfg = self.model_wrap_cfg
        cfg.p, cfg.step = p, 0
        cfg.mask, cfg.nmask = getattr(p, "mask", None), getattr(p, "nmask", None)
        cfg.image_cfg_scale = getattr(p, "image_cfg_scale", None)
        self.eta = p.eta if p.eta is not None else getattr(shared.opts, self.eta_option_field, 0.0)
        self.s_min_uncond = getattr(p, "s_min_uncond", 0.0)
        k_sampling.torch = TorchHijack(p)
        parameters = inspect.signature(self.func).parameters
        names = [x for x in self.extra_params if hasattr(p, x) and x in parameters]
        kwargs = {x: getattr(p, x) for x in names}
        if "eta" in parameters:
            if self.eta != self.eta_default:
                p.extra_generation_params[self.eta_infotext_field] = self.eta
            kwargs["eta"] = self.eta
        if self.extra_params:
            self._take_sigma_options(p, kwargs)
        return kwargs

    def _take_sigma_options(self, p: Any, kwargs: dict[str, Any]) -> None:
        labels = {"s_churn": "Sigma churn", "s_tmin": "Sigma tmin", "s_tmax": "Sigma tmax", "s_noise": "Sigma noise"}
        for name, label in labels.items():
            value = getattr(shared.opts, name, getattr(p, name))
            if name == "s_tmax":
                value = value or self.s_tmax  # 0 means no limit
            if name in kwargs and value != getattr(self, name):
                kwargs[name] = value
                setattr(p, name, value)
                p.extra_generation_params[label] = value

    def create_noise_sampler(self, x: Tensor, sigmas: Tensor, p: Any) -> Any:
        """Brownian noise by image seed, so that the batch size does not matter."""
        if shared.opts.no_dpmpp_sde_batch_determinism:
            return None
        low, high = sigmas[sigmas > 0].min(), sigmas.max()
        seeds = p.all_seeds[p.iteration * p.batch_size : (p.iteration + 1) * p.batch_size]
        return k_sampling.BrownianTreeNoiseSampler(x, low, high, seed=seeds)

    def run(self, p: Any, x: Tensor, steps: int, conds: tuple[Any, Any, Any], kwargs: dict[str, Any]) -> Tensor:
        """Call the sampling function on `x` with (cond, uncond, image_cond)."""
        cond, uncond, image_cond = conds
        self.sampler_extra_args = {
            "cond": cond,
            "image_cond": image_cond,
            "uncond": uncond,
            "cond_scale": p.cfg_scale,
            "s_min_uncond": self.s_min_uncond,
        }

        def call() -> Tensor:
            return self.func(
                self.model_wrap_cfg,
                x,
                extra_args=self.sampler_extra_args,
                disable=True,
                callback=self.callback_state,
                **kwargs,
            )

        samples = self.launch_sampling(steps, call)
        self.add_infotext(p)
        return samples

    def sample(self, p: Any, x: Tensor, conditioning: Any, unconditional_conditioning: Any, steps: int | None = None,
               image_conditioning: Any = None) -> Tensor:  # fmt: skip
        raise NotImplementedError

    def sample_img2img(self, p: Any, x: Tensor, noise: Tensor, conditioning: Any, unconditional_conditioning: Any,
                       steps: int | None = None, image_conditioning: Any = None) -> Tensor:  # fmt: skip
        raise NotImplementedError

    def add_infotext(self, p: Any) -> None:
        for attribute, name in (("padded_cond_uncond", "Pad conds"), ("padded_cond_uncond_v0", "Pad conds v0")):
            if getattr(self.model_wrap_cfg, attribute):
                p.extra_generation_params[name] = True
