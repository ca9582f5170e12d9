"""Other U-Net implementations (TensorRT and the like) that extensions may offer."""

from __future__ import annotations

from typing import Any

import torch
from modules import devices, script_callbacks, shared

unet_options: list[Any] = []
current_unet_option: Any = None
current_unet: Any = None
original_forward: Any = None


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
    new_option = get_unet_option(option)
    if new_option is current_unet_option:
        return
    if current_unet is not None:
        current_unet.deactivate()
    current_unet_option = new_option
    if new_option is None:
        current_unet = None
        if not shared.sd_model.lowvram:
            shared.sd_model.model.diffusion_model.to(devices.device)
        return
    shared.sd_model.model.diffusion_model.to(devices.cpu)
    devices.torch_gc()
    current_unet = new_option.create_unet()
    current_unet.option = new_option
    current_unet.activate()


class SdUnetOption:
    model_name: str | None = None
    label: str | None = None

    def create_unet(self) -> Any:
        raise NotImplementedError


class SdUnet(torch.nn.Module):
    def forward(self, x: Any, timesteps: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def activate(self) -> None: ...

    def deactivate(self) -> None: ...
