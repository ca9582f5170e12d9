"""Device and number formats of the models."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from modules import shared
from modules.shared_cmd_options import cmd_opts

cpu = torch.device("cpu")
fp8 = False
force_fp16 = False


class NansException(Exception):
    """A model produced NaN."""


def get_optimal_device_name() -> str:
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def get_device_for(task: str) -> torch.device:
    """CPU when the task, or "all", was named in --use-cpu."""
    return cpu if task in cmd_opts.use_cpu or "all" in cmd_opts.use_cpu else get_optimal_device()


def get_optimal_device() -> torch.device:
    return torch.device(get_optimal_device_name())


device = get_device_for("sd")
_full = cmd_opts.no_half or device.type == "cpu"
dtype: torch.dtype = torch.float32 if _full else torch.float16
dtype_unet: torch.dtype = dtype
dtype_inference: torch.dtype = dtype
dtype_vae: torch.dtype = torch.float32 if _full or cmd_opts.no_half_vae else torch.float16
unet_needs_upcast = bool(cmd_opts.upcast_sampling and dtype == torch.float16)


def torch_gc() -> None:
    """Give cached memory back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def autocast(disable: bool = False) -> AbstractContextManager[Any]:
    """`torch.autocast` of the device; nothing with 32-bit or pure 16-bit computing."""
    if disable or dtype == torch.float32 or cmd_opts.precision in ("full", "half") or device.type != "cuda":
        return contextlib.nullcontext()
    return torch.autocast("cuda")


def without_autocast(disable: bool = False) -> AbstractContextManager[Any]:
    active = device.type == "cuda" and torch.is_autocast_enabled()
    return torch.autocast("cuda", enabled=False) if active and not disable else contextlib.nullcontext()


def cond_cast_unet(value: torch.Tensor) -> torch.Tensor:
    return value.to(dtype_unet) if unet_needs_upcast else value


def cond_cast_float(value: torch.Tensor) -> torch.Tensor:
    return value.float() if unet_needs_upcast else value


def test_for_nans(x: torch.Tensor, where: str) -> None:
    """Raise NansException when the first element is NaN (as the real host: only the first)."""
    if cmd_opts.disable_nan_check or not torch.isnan(x[(0,) * x.ndim]).item():
        return
    name = {"unet": "Unet", "vae": "VAE"}.get(where, where)
    remedy = "" if cmd_opts.no_half else " Use --no-half to compute with 32-bit floats."
    raise NansException(f"A tensor with NaNs was produced in {name}.{remedy}")


def first_time_calculation() -> None:
    """Warm the device up with one small convolution, as the real host does at start."""
    torch.nn.Conv2d(1, 1, 3).to(device=device, dtype=dtype)(torch.zeros(1, 1, 3, 3, device=device, dtype=dtype))


shared.device = device
