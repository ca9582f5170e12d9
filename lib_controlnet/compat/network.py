"""The control under way as other extensions look at it: `latest_network` on our script, and `scripts.{hook,cldm}`.

Tiled Diffusion and its kind read each unit's hint, cut it as they cut the latent, and set the pieces before each call
of the U-Net. Hooks, rows and models are the session's own: they cannot be changed from here, and trying is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..engine.generation import UnitRun
from .enums import ControlModelType, HiResFixOption


class Control(Protocol):
    """What is asked of the runner of the host."""

    def runs(self) -> Sequence[UnitRun]:
        """The units of the job under way; none without one."""
        ...

    def hint(self, index: int) -> Tensor:
        """The whole hint of one of them for the pass under way or about to be, (1, 3 or 4, H, W)."""
        ...

    def replace_hint(self, index: int, tensor: Tensor) -> None:
        """`tensor` (T, 3 or 4, H, W) takes its place for the next U-Net calls."""
        ...

    def film_rows(self) -> int:
        """Rows of the denoiser's call under way where they are the frames of a film; 0 otherwise."""
        ...

    def choose_rows(self, places: Sequence[int]) -> None:
        """The next U-Net calls have these rows of it, () for all."""
        ...

    def detach(self) -> None:
        """Takes every hook of ours off the host."""
        ...


class ControlNet:
    """Stands for a loaded control model where its class is asked for. `model` is ours."""

    def __init__(self, model: Any) -> None:
        self.model = model


class PlugableControlModel:
    """The same, one layer further out, as sd-webui-controlnet has it."""

    def __init__(self, control_model: ControlNet) -> None:
        self.control_model = control_model


class ControlParams:
    """A unit in action. `hint_cond` can be read and set; everything else is the unit's and only read.

    `hint_cond`: (1, 3, H, W) float 0..1 of the pass, with the unit's region mask as a fourth channel where it has one.
    Set to (T, 3 or 4, h, w), a piece for each tile of the next U-Net calls, it is used from then on.

    While AnimateDiff draws a film it is (B, 1, 1, 1), the numbers of the rows of the denoiser's call: AnimateDiff takes
    those of the window that it draws next, sets them, and puts the whole back.
    """

    def __init__(self, control: Control, index: int, run: UnitRun) -> None:
        self._control, self._index, self._run = control, index, run
        self._set: Tensor | None = None
        self.used_hint_cond = None  # others set these to None to have a hint read anew, which happens anyway
        self.used_hint_cond_latent = None
        self.used_hint_inpaint_hijack = None

    @property
    def hint_cond(self) -> Tensor:
        """The hint that is used now."""
        rows = self._control.film_rows()
        if rows:
            return torch.arange(rows).reshape(-1, 1, 1, 1) if self._set is None else self._set
        if self._run.tile is not None and self._set is not None:
            return self._set
        return self._control.hint(self._index)

    @hint_cond.setter
    def hint_cond(self, tensor: Tensor) -> None:
        if not isinstance(tensor, torch.Tensor) or tensor.ndim not in (3, 4):
            raise TypeError("hint_cond is a tensor (T, 3, h, w) of the pieces of the next U-Net call")
        rows = self._control.film_rows()
        if rows:
            self._set_rows(tensor, rows)
            return
        pieces = tensor[None] if tensor.ndim == 3 else tensor
        self._control.replace_hint(self._index, pieces)
        self._set = pieces

    def _set_rows(self, tensor: Tensor, rows: int) -> None:
        if tensor.shape != (len(tensor), 1, 1, 1):
            raise TypeError("while a film is drawn, hint_cond has the numbers of rows")
        whole = len(tensor) == rows
        self._control.choose_rows(() if whole else [int(place) for place in tensor.flatten()])
        self._set = None if whole else tensor

    @property
    def hr_hint_cond(self) -> None:
        """`hint_cond` follows the pass, so there is no second one."""
        return

    @property
    def control_model(self) -> PlugableControlModel:
        """The unit's model."""
        return PlugableControlModel(ControlNet(self._run.model))

    @property
    def control_model_type(self) -> ControlModelType:
        """All of ours give residuals as a ControlNet does."""
        return ControlModelType.ControlNet

    @property
    def preprocessor(self) -> dict[str, Any]:
        """Its name and settings."""
        unit = self._run.unit
        return {"name": self._run.spec.id, "threshold_a": unit.threshold_a, "threshold_b": unit.threshold_b}

    @property
    def weight(self) -> float:
        """The unit's weight."""
        return self._run.unit.weight

    @property
    def advanced_weighting(self) -> list[float] | None:
        """A weight for each output, where the unit has them."""
        weights = self._run.unit.layer_weights
        return None if weights is None else list(weights)

    @property
    def start_guidance_percent(self) -> float:
        """Where in the sampling the unit begins."""
        return self._run.guidance.start

    @property
    def stop_guidance_percent(self) -> float:
        """Where in the sampling the unit ends."""
        return self._run.guidance.end

    @property
    def guidance_stopped(self) -> bool:
        """Whether the unit has no part in this pass."""
        return self._run.rests

    @property
    def soft_injection(self) -> bool:
        """Whether deeper layers weigh more."""
        return self._run.unit.control_mode.soft

    @property
    def cfg_injection(self) -> bool:
        """Whether rows of the negative prompt get no control."""
        return self._run.unit.control_mode.cond_only

    @property
    def global_average_pooling(self) -> bool:
        """Whether the residuals are pooled."""
        return self._run.bound is not None and self._run.bound.pooled

    @property
    def hr_option(self) -> HiResFixOption:
        """The passes in which the unit acts."""
        return HiResFixOption(self._run.unit.hr_option.value)


class LatestNetwork:
    """The control of the job under way."""

    def __init__(self, control: Control, runs: Sequence[UnitRun]) -> None:
        self._control = control
        self.control_params = [ControlParams(control, index, run) for index, run in enumerate(runs)]

    def restore(self, *_unet: Any) -> None:
        """Takes control off the U-Net, as old ADetailer asks; a job that goes on without it is stopped."""
        self._control.detach()


class NetworkView:
    """`latest_network`: one object as long as a job's units are the same ones."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._runs: list[UnitRun] = []
        self._network: LatestNetwork | None = None

    def latest(self) -> LatestNetwork | None:
        """The control under way; None where no unit acts."""
        runs = list(self._control.runs())
        if len(runs) != len(self._runs) or any(one is not other for one, other in zip(runs, self._runs, strict=True)):
            self._runs, self._network = runs, LatestNetwork(self._control, runs) if runs else None
        return self._network


# -- scripts.hook -------------------------------------------------------------------------------------------------

POSITIVE_MARK_TOKEN = 1024
NEGATIVE_MARK_TOKEN = -POSITIVE_MARK_TOKEN
MARK_EPS = 1e-3


class TorchHijackForUnet:
    """torch, but with a `cat` that brings two tensors to one size; others wrap its `cat`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def cat(self, tensors: Any, *args: Any, **kwargs: Any) -> Tensor:
        """`torch.cat`; the first of two is resized to the second."""
        if len(tensors) == 2 and tensors[0].shape[-2:] != tensors[1].shape[-2:]:
            first = torch.nn.functional.interpolate(tensors[0], tensors[1].shape[-2:], mode="nearest")
            tensors = (first, tensors[1])
        return torch.cat(tensors, *args, **kwargs)


def mark_prompt_context(x: Any, positive: bool) -> Any:
    """The prompt as it is: rows of the negative prompt are told by the host, and need no mark."""
    return x


def prompt_context_is_marked(_x: Any) -> bool:
    """Prompts are never marked."""
    return False


def unmark_prompt_context(x: Tensor) -> tuple[Tensor, list[int], list[int], Tensor]:
    """(1 for each row, no negative rows, no positive rows, the context) of an unmarked context (B, N, D)."""
    return torch.ones(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device), [], [], x
