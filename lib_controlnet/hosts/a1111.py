"""AUTOMATIC1111 1.10 and hosts with its surface: where its U-Net is, and what a job asks for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..core.checkpoint import Checkpoint
from ..core.errors import HostError
from ..core.preprocessors import PreprocessorSpec
from ..core.units import ControlNetUnit
from ..engine.generation import Picture
from ..engine.injection import is_ldm_unet
from ..families.base import BaseModel, Runtime
from ..nets.config import UNetConfig
from ..nets.operations import layout_of
from .a1111_memory import is_rounded, is_short, is_shortest, keeps_fp8, reserve, true_weights
from .a1111_pictures import unit_pictures, unit_region
from .a1111_vae import encode


class A1111Host:
    """Looks the host's state up at every call: models come and go between jobs, and within them."""

    name = "AUTOMATIC1111"

    def __init__(self) -> None:
        self._configs: WeakKeyDictionary[nn.Module, UNetConfig] = WeakKeyDictionary()

    def unet(self) -> nn.Module:
        """The U-Net that the next sampling step will call. Raises HostError where control cannot be added to it."""
        from modules import sd_unet

        if getattr(sd_unet, "current_unet", None) is not None:
            raise HostError(
                "a replacement U-Net is active whose blocks are never called",
                found=type(sd_unet.current_unet).__name__,
                remedy='set "SD Unet" to None in the settings',
            )
        return self.network()

    def network(self) -> nn.Module:
        """The checkpoint's own U-Net. Raises HostError where it is of another kind.

        Before a job's first sampling the host still has the replacement that the job before may have used.
        """
        from modules import shared

        wrapper = getattr(shared.sd_model, "model", None)
        unet = getattr(wrapper, "diffusion_model", None)
        if not isinstance(unet, nn.Module) or not is_ldm_unet(unet):
            raise HostError(
                "the checkpoint's network is not one that ControlNet can steer",
                found=type(unet or shared.sd_model).__name__,
                remedy="load a checkpoint of SD 1.x, SD 2.x or SDXL",
            )
        return unet

    def base_model(self, unet: nn.Module) -> BaseModel:
        """The architecture of `unet` and the title of the checkpoint in it."""
        from modules import shared

        if unet not in self._configs:
            self._configs[unet] = UNetConfig.from_weights(unet.state_dict())
        info = getattr(shared.sd_model, "sd_checkpoint_info", None)
        return BaseModel(self._configs[unet], title=getattr(info, "title", None) or "the loaded checkpoint")

    def loaded_model(self) -> BaseModel:
        """The checkpoint that is loaded now. Raises HostError where there is none; asking never loads one."""
        from modules import sd_models

        data = getattr(sd_models, "model_data", None)
        if data is None or data.sd_model is None:
            raise HostError("no checkpoint is loaded yet", remedy="it is loaded with the first picture")
        return self.base_model(self.unet())

    def base_id(self, model: Any = None) -> str:
        """Changes when another checkpoint's weights are in use, or the same in another precision.

        `model`: the host's object, where it is not the one in use yet.
        """
        from modules import shared

        model = shared.sd_model if model is None else model
        info = getattr(model, "sd_checkpoint_info", None)
        parts = (getattr(info, "filename", ""), getattr(model, "sd_model_hash", ""), "fp8" if keeps_fp8() else "")
        return ":".join(map(str, parts))

    def runtime(self, unet: nn.Module) -> Runtime:
        """Control models run where the host puts the task "controlnet", in the U-Net's dtype."""
        from modules import shared

        device, dtype = task_place()
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


class A1111Generation:
    """One job (`StableDiffusionProcessing`), as a session needs it."""

    unit_per_image = False

    def __init__(self, host: A1111Host, p: Any) -> None:
        unet = host.network()
        self._p = p
        self.width = int(p.width) // 8 * 8
        self.height = int(p.height) // 8 * 8
        self.batch_size = int(getattr(p, "batch_size", 1) or 1)
        self.paints_mask = getattr(p, "image_mask", None) is not None
        self.seed = _seed(p)
        self.base = host.base_model(unet)
        self.base_id = host.base_id()
        self.runtime: Runtime = host.runtime(unet)

    @property
    def hires(self) -> bool:
        """Asked anew: others may switch hires fix on or off before the first pass begins."""
        return bool(getattr(self._p, "enable_hr", False))

    @property
    def final_size(self) -> tuple[int, int]:
        """As the hires pass will have it, where there is one."""
        return _final_size(self._p) if self.hires else (self.width, self.height)

    def pictures(self, unit: ControlNetUnit, spec: PreprocessorSpec) -> Sequence[Picture]:
        """The unit's own picture or the img2img sources, cropped as the host crops."""
        return unit_pictures(self._p, unit, spec)

    def region(self, unit: ControlNetUnit) -> NDArray[np.uint8] | None:
        """The unit's region mask, cropped as the host crops the picture."""
        return unit_region(self._p, unit)

    def checkpoint(self) -> Checkpoint:
        """Looked up anew at every pass: the host may change the noise schedule when a job begins."""
        from modules import devices, shared

        model = shared.sd_model
        alphas = model.alphas_cumprod.to(devices.device)  # elsewhere every step would wait for the copy
        velocity = getattr(model, "parameterization", "eps") == "v"
        seed = _first_drawn(self._p.seed, getattr(self._p, "all_seeds", None))
        no_prompt = not self._p.prompt and not self._p.negative_prompt
        return Checkpoint(alphas, velocity, partial(encode, model, seed), seed, no_prompt)


def task_place() -> tuple[torch.device, torch.dtype]:
    """Where the task "controlnet" runs, and in which type.

    The U-Net's type, but float32 on a processor (`--use-cpu controlnet` beside a graphics card): there half precision
    is many times slower than float32, and older releases of torch lack most of it.
    """
    from modules import devices

    device = torch.device(devices.get_device_for("controlnet"))
    half = device.type == "cpu" and devices.dtype_unet.itemsize < torch.float32.itemsize
    return device, torch.float32 if half else devices.dtype_unet


def _final_size(p: Any) -> tuple[int, int]:
    """(width, height) after hires fix, which the host computes only later (`Txt2Img.calculate_target_resolution`)."""
    width, height = int(p.hr_resize_x), int(p.hr_resize_y)
    if not width and not height:
        width, height = int(p.width * p.hr_scale), int(p.height * p.hr_scale)
    elif not height:
        height = width * p.height // p.width
    elif not width:
        width = height * p.width // p.height
    return width // 8 * 8, height // 8 * 8


def latent_pixels(x: torch.Tensor) -> tuple[int, int]:
    """(width, height) in pixels of a latent `(B, C, h, w)`."""
    return int(x.shape[-1]) * 8, int(x.shape[-2]) * 8


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


def _seed(p: Any) -> int:
    """The first picture's seed, with its subseed where that has a say; prompt matrix and others put lists in `p`.

    The host draws a subseed at random for every job that asks for none: where its strength is 0 it changes nothing in
    the picture, and must not change the map either.
    """
    seed = _first_drawn(p.seed, getattr(p, "all_seeds", None))
    if getattr(p, "subseed_strength", 0):
        seed += _first_drawn(p.subseed, getattr(p, "all_subseeds", None))
    return seed & 0xFFFFFFFF


def _first_drawn(value: Any, drawn: Any) -> int:
    """The first of the seeds that the host drew for its pictures, or the one that was asked for."""
    first = drawn or value
    return max(int(first[0] if isinstance(first, (list, tuple)) else first), 0)
