"""Other U-Net implementations (TensorRT and the like) that extensions may offer."""

from __future__ import annotations

from typing import Any

import torch
from modules import devices, script_callbacks, shared

current_unet: Any = None
current_unet_option: Any = None
original_forward: Any = None
unet_options: list[Any] = []


def list_unets() -> None:
    unet_options[:] = script_callbacks.list_unets_callback()


def get_unet_option(option: str | None = None) -> Any:
    option = option or shared.opts.sd_unet
    if option == "Automatic":
        name = shared.sd_model.sd_checkpoint_info.model_name
        return next((x for x in unet_options if x.model_name == name), None)
    return next((x for x in unet_options if x.label == option), None)


def apply_unet(option: str | None = None) -> None:
    """Activate the chosen implementation; the built-in U-Net moves to the CPU meanwhile."""
    global current_unet_option, current_unet
    wanted = get_unet_option(option)
    if wanted is current_unet_option:
        return
    if current_unet is not None:
        current_unet.deactivate()
    current_unet, current_unet_option = None, wanted
    own, keeps_home = shared.sd_model.model.diffusion_model, shared.sd_model.lowvram
    if wanted is not None:
        own.to(devices.cpu)
        current_unet = _activated(wanted)
    elif not keeps_home:
        own.to(devices.device)


def _activated(option: Any) -> Any:
    devices.torch_gc()
    unet = option.create_unet()
    unet.option = option
    unet.activate()
    return unet


class SdUnetOption:
    """One implementation, for the checkpoint `model_name`; `label` is its name in the settings."""

    label: str | None = None
    model_name: str | None = None

    def create_unet(self) -> Any:
        raise NotImplementedError


class SdUnet(torch.nn.Module):
    def forward(self, x: Any, timesteps: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def activate(self) -> None: ...

    def deactivate(self) -> None: ...
