"""What a session works on: the host's job as it sees it, and one unit of it while it lasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.checkpoint import Checkpoint
from ..core.errors import BaseModelError
from ..core.hints import Hint
from ..core.modes import ResizeMode
from ..core.preprocessors import PreprocessorSpec
from ..core.residuals import RegionMask
from ..core.resize import fit_map
from ..core.schedule import GuidanceRange, WeightCurve
from ..core.step import Pass
from ..core.units import ControlNetUnit
from ..families.base import BaseModel, BoundControl, ControlModel, Runtime, UnitSettings
from .acting import Acting
from .parts import Part
from .preprocess import PreprocessResult
from .tiles import TiledHint

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """What a unit works on after the host's crop: image (H, W, 3) and mask (H, W) uint8, 255 = masked, or None."""

    image: Pixels
    mask: Pixels | None
    resize_mode: ResizeMode


@dataclass(frozen=True, eq=False)
class Region:
    """Where in the picture a unit acts: mask (H, W) uint8, 255 = there, fitted to a pass as its maps are.

    Without a resize mode it is stretched over the picture as it is.
    """

    mask: Pixels
    resize_mode: ResizeMode | None = None

    def of_pass(self, width: int, height: int) -> RegionMask:
        """As it is in a pass of `width` x `height` pixels."""
        mask = self.mask
        if self.resize_mode is not None:
            mask = fit_map(mask, width, height, self.resize_mode)[:, :, 0]
        return RegionMask(torch.as_tensor(np.ascontiguousarray(mask), dtype=torch.float32)[None, None] / 255.0)


class Generation(Protocol):
    """What a session must know of the host's job."""

    width: int
    """Width of the base pass in pixels, a multiple of 8; `height` likewise."""
    height: int
    paints_mask: bool
    """The host itself paints within a mask and keeps what lies outside (img2img inpainting)."""
    seed: int
    batch_size: int
    """Pictures that are drawn together."""
    unit_per_image: bool
    """Unit u of n acts on picture j of a batch only where j mod n = u (the peers' batch option)."""
    film: bool
    """The pictures of a batch are the frames of a film, which another extension draws."""
    base: BaseModel
    base_id: str
    runtime: Runtime

    @property
    def hires(self) -> bool:
        """There is a second pass; others may switch it on or off until the first begins."""
        ...

    @property
    def final_size(self) -> tuple[int, int]:
        """(width, height) of the finished picture: of the hires pass where there is one."""
        ...

    def pictures(self, unit: ControlNetUnit, spec: PreprocessorSpec) -> Sequence[Picture]:
        """The unit's own picture or the host's (one for each image of the batch), cropped as the host crops."""
        ...

    def region(self, unit: ControlNetUnit, spec: PreprocessorSpec) -> Region | None:
        """Where the unit acts, as it lies over the pictures of the job, cropped as the host crops."""
        ...

    def checkpoint(self) -> Checkpoint:
        """The checkpoint's noise schedule and VAE."""
        ...


def _no_layers(_progress: float) -> tuple[float, ...]:
    return ()


@dataclass(eq=False)
class UnitRun:
    """A unit while its generation lasts."""

    unit: ControlNetUnit
    model_name: str
    model: ControlModel
    results: Sequence[PreprocessResult]
    """One, or one for each image of the batch."""
    resize_mode: ResizeMode
    guidance: GuidanceRange
    region: RegionMask | None
    """Where it acts in the pass that has begun."""
    asked_region: Region | None = None
    hints: dict[Pass, Sequence[Hint]] = field(default_factory=dict[Pass, Sequence[Hint]])
    own: ControlModel | None = None
    """What its preprocessor does to the sampling beside its model."""
    parts: Sequence[Part] = ()
    """What acts in the pass that has begun: its model, then its preprocessor."""
    curve: WeightCurve | None = None
    """Its weight in the pass that has begun, where that is not the same throughout."""
    layers: Callable[[float], tuple[float, ...]] = _no_layers
    """Progress -> a factor for each output of its model."""
    rests: bool = False
    """The unit has no part in the pass that has begun (hires option)."""
    took_part: bool = False
    """The unit has had a part in a pass."""
    acting: Acting = field(default_factory=Acting)
    tile: TiledHint | None = None
    """Pieces of the hint for the U-Net calls to come, where a tiler runs."""
    tile_orders: dict[tuple[int, int], bool] = field(default_factory=dict[tuple[int, int], bool])
    mismatch: BaseModelError | None = None
    """Why the U-Net in use cannot take this unit's model, if so; raised when the unit would act."""

    _settings: UnitSettings | None = None

    @property
    def settings(self) -> UnitSettings:
        """What its controls were bound with for the pass that has begun."""
        if self._settings is None:
            raise RuntimeError("control asked for before the pass began")
        return self._settings

    @settings.setter
    def settings(self, settings: UnitSettings) -> None:
        self._settings = settings

    @property
    def models(self) -> Sequence[ControlModel]:
        """Its model, and what its preprocessor does beside it."""
        return (self.model,) if self.own is None else (self.model, self.own)

    @property
    def bound(self) -> BoundControl | None:
        """What its model does in the pass that has begun."""
        return self.parts[0].bound if self.parts else None

    @property
    def takes_part(self) -> bool:
        """It is to act in the pass that has begun, where its range says so."""
        return not self.rests and not self.idle_by_choice

    @property
    def spec(self) -> PreprocessorSpec:
        """The preprocessor's data sheet."""
        return self.results[0].spec

    def result_of(self, image: int) -> PreprocessResult | None:
        """What was found in its picture for a picture of the batch; None where a film's frame has none."""
        keys = () if self.unit.frames is None else self.unit.frames.keys
        if keys:
            return self.results[keys.index(image)] if image in keys else None
        return self.results[image if len(self.results) > 1 else 0]

    @property
    def reuses(self) -> bool:
        """Its residuals may serve for several steps of the pass that has begun."""
        return self.takes_part and self.unit.reuse_control > 0.0 and self.model.reusable

    def weight_at(self, progress: float) -> float:
        """Its weight at a step."""
        return self.unit.weight if self.curve is None else self.curve.at(progress)

    def acts_at(self, progress: float) -> bool:
        """It is to act at a step."""
        in_range = self.takes_part and self.guidance.contains(progress)
        return in_range and (self.curve is None or self.curve.at(progress) != 0.0)

    def acts_after(self, progress: float) -> bool:
        """It may be to act at a later step."""
        end = 1.0 if self.curve is None else self.curve.end
        return min(self.guidance.end, end) > progress

    def cond_only(self, part: Part) -> bool:
        """A control of it has no say in rows of the negative prompt."""
        return part.bound.pooled or (part.bound.obeys_mode and self.unit.control_mode.cond_only)

    def strength(self, is_cond: bool, image: int) -> float:
        """By what its weight is multiplied in a row of a picture of the batch."""
        own = 1.0 if self.unit.batch_weights is None else self.unit.batch_weights[image % len(self.unit.batch_weights)]
        return own if is_cond else own * self.unit.uncond_weight

    @property
    def idle_by_choice(self) -> str:
        """Why the unit is to do nothing whatever the sampling is like; "" where it is to act."""
        if self.curve is not None and not self.curve.peak:
            return "its weight schedule is 0 everywhere"
        if self.unit.layer_weights is None and self.unit.weight == 0.0 and self.curve is None:
            return "its weight is 0"
        return self._idle_always

    @cached_property
    def _idle_always(self) -> str:
        if self.unit.batch_weights is not None and not any(self.unit.batch_weights):
            return "all its batch weights are 0"
        if self.unit.layer_weights is not None and not any(self.unit.layer_weights):
            return "all its layer weights are 0"
        if self.unit.region_mask is not None and not self.unit.region_mask.any():
            return "its region mask is wholly black"
        if self.region is not None and self.region.empty:
            return "its region mask leaves out the part that is painted"
        return ""
