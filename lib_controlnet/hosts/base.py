"""What a host is to us: where its U-Net is, how it samples, and how control is brought to it.

Everything else of a WebUI (its jobs, pictures, page) is alike in all of them and lies in `webui`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..core.step import RowTeller
from ..engine.injection import PassControl
from ..engine.session import ControlSession
from ..engine.sites import LdmSites
from ..families.base import BaseModel, Runtime


class Hooks(Protocol):
    """Our hooks on one U-Net."""

    paused: bool
    """Calls that begin now are let pass as they are."""

    def remove(self) -> None:
        """Undoes them; twice is fine."""
        ...


class Host(Protocol):
    """One WebUI. Nothing is kept of its state, which is looked up at every call."""

    name: str
    """As its users call it."""
    masks_are_regions: bool
    """Its own ControlNet takes a unit's mask, or the job's, as where the unit acts."""
    notice: str
    """A sentence that its users must know before anything else, "" for none."""

    def give_notice(self) -> None:
        """Says it in the host's log."""
        ...

    def preprocessors(self) -> Iterable[Any]:
        """The host's own, in the shape in which sd-webui-controlnet has them."""
        ...

    def unet(self) -> nn.Module:
        """The U-Net that the next sampling step will call. Raises HostError where control cannot be added to it."""
        ...

    def network(self) -> nn.Module:
        """The checkpoint's own U-Net, also behind a replacement. Raises HostError where it is of another kind."""
        ...

    def base_model(self, unet: nn.Module) -> BaseModel:
        """The architecture of `unet` and the title of the checkpoint in it."""
        ...

    def loaded_model(self) -> BaseModel:
        """The checkpoint that is loaded now. Raises HostError where there is none; asking never loads one."""
        ...

    def base_id(self, model: Any = None) -> str:
        """Changes when another checkpoint's weights are in use, or the same in another precision."""
        ...

    def place(self) -> tuple[torch.device, torch.dtype]:
        """Where control models and preprocessors run, and in which type."""
        ...

    def runtime(self, unet: nn.Module) -> Runtime:
        """Where and how the control models of a job are to run."""
        ...

    def noise_schedule(self) -> tuple[Tensor, bool]:
        """Alphas' cumulative product (1000,), and whether the U-Net predicts v."""
        ...

    def join(self, p: Any, session: ControlSession) -> Callable[[], None]:
        """A pass of `p` is about to be sampled under control: tells the host what it must know of it. Undone by what is
        returned.
        """
        ...

    def hooks(self, unet: nn.Module, control: PassControl) -> Hooks:
        """From now on `control` is asked at every call of `unet`, and its residuals are added."""
        ...

    def sites(self, unet: nn.Module) -> LdmSites:
        """The places in the layers of `unet`."""
        ...

    def rows(self, params: Any) -> RowTeller:
        """Tells the rows of the U-Net calls of a denoiser step (`CFGDenoiserParams`)."""
        ...

    def progress(self, params: Any, timed: bool) -> float:
        """How far sampling is at a denoiser step, 0..1, as a guidance range is meant in this host.

        timed: some unit does not act alike during the whole pass, so that it matters.
        """
        ...
