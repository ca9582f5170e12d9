"""Whether a unit that was to act in a pass did: counted call by call, judged when the sampling ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import ControlNetError, HostError, ModelFileError
from ..core.residuals import Residuals


@dataclass(eq=False)
class Acting:
    """What one unit did in one pass. Counts are of U-Net calls."""

    in_range: int = 0
    """Those in the unit's guidance range."""
    with_rows: int = 0
    """Of these, those with rows that the unit has a say in."""
    acted: int = 0
    """Of these, those whose prediction was made with the unit's control."""
    peak: Tensor | None = None
    """The largest absolute residual of the first call with control, () float32 on its device; None until then."""
    read: bool = False
    """`peak` has been looked at."""

    def measure(self, control: Residuals) -> None:
        """Remembers how large the first residuals are. On the CPU a wrong size raises at once: see `check`."""
        if self.peak is not None or not control.outputs():
            return
        self.peak = torch.stack([_peak(tensor) for tensor in control.outputs()]).amax()
        if self.peak.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raises ModelFileError for residuals that are not finite or all zero. Waits for the device, once a pass."""
        if self.peak is None or self.read:
            return
        self.read = True
        peak = float(self.peak)
        if not math.isfinite(peak):
            raise ModelFileError(
                "the control model gives values that are not numbers",
                field="model",
                found="NaN or infinity in its residuals",
                remedy="the file may be damaged; download it again, or run control models in full precision",
            )
        if peak == 0.0:
            raise ModelFileError(
                "the control model gives nothing but zeros",
                field="model",
                found="every residual is 0, as in a model whose output layers (zero convolutions) were never trained",
                remedy="choose a trained model, or train this one further",
            )


def _peak(tensor: Tensor) -> Tensor:
    """The largest absolute value, () float32; NaN where there is one."""
    return tensor.abs().amax().float()


def not_called(steps: int, closed: bool) -> ControlNetError:
    """The U-Net was never called in a whole sampling of `steps` denoiser steps."""
    if closed:
        return HostError(
            "control was taken away before the sampling began",
            found="the job's session was closed, as by another extension that ended the job in its middle",
            remedy="switch the other extensions off one by one to find which, and report it",
        )
    if steps:
        return HostError(
            "the U-Net was never called, so no control could be added",
            found=f"{steps} denoiser steps which somebody else answered, as an extension that replaces or caches it",
            remedy="switch that extension off, or disable the unit",
        )
    return HostError(
        "the sampler never called the U-Net, so no control could be added",
        found="no denoiser step; DDIM and PLMS need two steps or more, counted as steps x denoising strength",
        remedy="raise the steps or the denoising strength, take another sampler, or disable the unit",
    )


def never_acted(acting: Acting) -> ControlNetError:
    """The U-Net was called in the unit's range, and no control of it was ever added."""
    if not acting.with_rows:
        return HostError(
            "the unit acts on rows of the positive prompt only, and no U-Net call had any",
            field="control_mode",
            found=f"{acting.in_range} U-Net calls with rows of the negative prompt",
            remedy='set the control mode to "Balanced", or switch off what runs the prompts apart',
        )
    return HostError(
        "the unit's control did not reach the U-Net's predictions",
        found=f"{acting.in_range} U-Net calls in its range, none of which ended with it",
        remedy="switch off the extension that replaces the U-Net, or disable the unit",
    )
