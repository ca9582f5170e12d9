"""What all hosts of AUTOMATIC1111's kind say of themselves in the same way."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ...core.errors import HostError
from ...engine.injection import is_ldm_unet
from ...families.base import BaseModel
from ...nets.config import UNetConfig

log = logging.getLogger("ControlNet")


class WebUIHost:
    """Looks the host's state up at every call: models come and go between jobs, and within them."""

    notice = ""
    masks_are_regions = False

    def __init__(self) -> None:
        self._configs: WeakKeyDictionary[nn.Module, UNetConfig] = WeakKeyDictionary()

    def give_notice(self) -> None:
        """Says it in the host's log."""
        if self.notice:
            log.warning("%s.", self.notice)

    def preprocessors(self) -> Iterable[Any]:
        """The host's own, in the shape in which sd-webui-controlnet has them."""
        return ()

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

        found = self.found_network(shared.sd_model)
        if not isinstance(found, nn.Module) or not is_ldm_unet(found):
            raise HostError(
                "the checkpoint's network is not one that ControlNet can steer",
                found=type(found or shared.sd_model).__name__,
                remedy="load a checkpoint of SD 1.x, SD 2.x or SDXL",
            )
        return found

    def found_network(self, model: Any) -> object:
        """Whatever the host's `model` has in the U-Net's place."""
        raise NotImplementedError

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
        if data is None or not self.has_loaded(data.sd_model):
            raise HostError("no checkpoint is loaded yet", remedy="it is loaded with the first picture")
        return self.base_model(self.unet())

    def base_id(self, model: Any = None) -> str:
        """Changes when another checkpoint's weights are in use, or the same in another precision.

        `model`: the host's object, where it is not the one in use yet.
        """
        from modules import shared

        model = shared.sd_model if model is None else model
        info = getattr(model, "sd_checkpoint_info", None)
        parts = (getattr(info, "filename", ""), getattr(model, "sd_model_hash", ""), self.precision(model))
        return ":".join(map(str, parts))

    def precision(self, model: Any) -> str:
        """In what the weights of the host's `model` are held, where that is not the checkpoint's own."""
        del model
        return ""

    def has_loaded(self, model: Any) -> bool:
        """Whether the host's `model` is a checkpoint, and not what stands in before there is one."""
        return model is not None

    def progress(self, params: Any, timed: bool) -> float:
        """How far sampling is: denoiser steps done of those planned, as sd-webui-controlnet counts."""
        del timed
        return params.denoiser.step / max(params.denoiser.total_steps, 1)

    def place(self) -> tuple[torch.device, torch.dtype]:
        """Where the task "controlnet" runs, and in which type.

        The U-Net's type, but float32 on a processor (`--use-cpu controlnet` beside a graphics card): there half
        precision is many times slower than float32, and older releases of torch lack most of it.
        """
        from modules import devices

        device = torch.device(devices.get_device_for("controlnet"))
        dtype = self.unet_dtype()
        half = device.type == "cpu" and dtype.itemsize < torch.float32.itemsize
        return device, torch.float32 if half else dtype

    def unet_dtype(self) -> torch.dtype:
        """In which type the U-Net computes."""
        from modules import devices

        return devices.dtype_unet
