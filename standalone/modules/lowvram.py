"""--medvram and --lowvram: only the module in use is on the device, moved there by forward pre-hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from modules import devices, shared
from modules.shared_cmd_options import cmd_opts
from torch import nn

module_in_gpu: nn.Module | None = None
cpu = torch.device("cpu")


def send_everything_to_cpu() -> None:
    _bring(None)


def is_needed(sd_model: Any) -> bool:
    return bool(cmd_opts.lowvram or cmd_opts.medvram or (cmd_opts.medvram_sdxl and hasattr(sd_model, "conditioner")))


def is_enabled(sd_model: Any) -> bool:
    return sd_model.lowvram


def apply(sd_model: Any) -> None:
    by_turns = is_needed(sd_model)
    shared.parallel_processing_allowed = not by_turns
    if by_turns:
        setup_for_low_vram(sd_model, use_medvram=not cmd_opts.lowvram)
    else:
        sd_model.lowvram = False


def _bring(module: nn.Module | None) -> None:
    """`module` (or none) to the device; the module that was there goes to the CPU."""
    global module_in_gpu
    leaving, module_in_gpu = module_in_gpu, module
    if leaving is module:
        return
    if leaving is not None:
        leaving.to(cpu)
    if module is not None:
        module.to(devices.device)


def _hook(module: nn.Module, _args: Any) -> None:
    _bring(module)


def _bringing(module: nn.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        _bring(module)
        return function(*args, **kwargs)

    return call


def setup_for_low_vram(sd_model: Any, use_medvram: bool) -> None:
    """Install the hooks once: on the U-Net's wrapper (medvram) or on each of its blocks (lowvram)."""
    if sd_model.lowvram:
        return
    sd_model.lowvram = True
    vae, text = sd_model.first_stage_model, sd_model.cond_stage_model.transformer
    sd_model.to(cpu)
    sd_model.alphas_cumprod = sd_model.alphas_cumprod.to(devices.device)
    text.register_forward_pre_hook(_hook)
    vae.register_forward_pre_hook(_hook)
    vae.encode = _bringing(vae, vae.encode)
    vae.decode = _bringing(vae, vae.decode)
    if use_medvram:
        sd_model.model.register_forward_pre_hook(_hook)
        return
    unet = sd_model.model.diffusion_model
    for module in (unet.time_embed, *unet.input_blocks, unet.middle_block, *unet.output_blocks):
        module.register_forward_pre_hook(_hook)
    for module in (getattr(unet, "label_emb", None), unet.out):
        if isinstance(module, nn.Module):
            module.to(devices.device)
