"""SD.Next: its networks are diffusers' pipelines and it has a control page of its own: we only make maps there."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..core.errors import HostError
from ..core.step import RowTeller
from ..engine.injection import PassControl
from ..engine.session import ControlSession
from ..engine.sites import LdmSites
from ..families.base import Runtime
from .base import Hooks
from .webui.host import WebUIHost


class SDNextHost(WebUIHost):
    """Every question about its U-Net is answered by the sentence that says why nothing can be steered."""

    name = "SD.Next"
    notice = (
        "Units do nothing in SD.Next, and one that is enabled stops its job: use SD.Next's own Control tab, which has "
        "ControlNet, T2I-Adapter and IP-Adapter. Preprocessors, previews and /controlnet/detect of this extension work"
    )

    def give_notice(self) -> None:
        """Says it in the host's log: other loggers' warnings are not shown there."""
        log: Any = importlib.import_module("modules.logger").log  # the embedded host has no such module
        log.warning("ControlNet: %s.", self.notice)

    def network(self) -> nn.Module:
        """Raises HostError."""
        _refuse()

    def unet(self) -> nn.Module:
        """Raises HostError."""
        _refuse()

    def place(self) -> tuple[torch.device, torch.dtype]:
        """Where preprocessors run, and in which type."""
        from modules import devices

        device = torch.device(devices.device)
        return device, torch.float32 if device.type == "cpu" else devices.dtype

    def runtime(self, unet: nn.Module) -> Runtime:
        """Raises HostError."""
        _refuse()

    def noise_schedule(self) -> tuple[Tensor, bool]:
        """Raises HostError."""
        _refuse()

    def join(self, p: Any, session: ControlSession) -> Callable[[], None]:
        """Raises HostError."""
        _refuse()

    def hooks(self, unet: nn.Module, control: PassControl) -> Hooks:
        """Raises HostError."""
        _refuse()

    def sites(self, unet: nn.Module) -> LdmSites:
        """Raises HostError."""
        _refuse()

    def rows(self, params: Any) -> RowTeller:
        """Raises HostError."""
        _refuse()

    def progress(self, params: Any, timed: bool) -> float:
        """Raises HostError."""
        _refuse()


def _refuse() -> NoReturn:
    raise HostError(
        "this extension does not steer SD.Next, whose own Control tab does",
        field="enabled",
        found="an enabled unit",
        remedy="use the Control tab, which has ControlNet, T2I-Adapter and IP-Adapter, or disable the unit",
    )
