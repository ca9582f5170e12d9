"""One generation: its units, their hints and their control. A host adapter makes and closes it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.batch import parted
from ..core.control import Control, RegionMask
from ..core.errors import BaseModelError, ControlNetError, UnitError
from ..core.hints import Hint, hint_from_map
from ..core.inputs import preprocessor_input
from ..core.modes import HiResOption, ResizeMode
from ..core.resize import fit_map, pixel_perfect_resolution
from ..core.schedule import GuidanceRange, layer_weights
from ..core.step import Pass, Step
from ..core.units import ControlNetUnit
from ..effects.base import Effect, Sampling, Setup
from ..effects.registry import discover
from ..effects.running import RunningEffects
from ..families.base import BaseModel, BindOptions, BoundControl, ControlModel, Runtime
from .library import NO_MODEL
from .no_model import NoModel
from .preprocess import PreprocessorSpec, PreprocessResult
from .services import Services

log = logging.getLogger("ControlNet")
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """What a unit works on after the host's crop: image (H, W, 3) and mask (H, W) uint8, 255 = masked, or None."""

    image: Pixels
    mask: Pixels | None
    resize_mode: ResizeMode


class Generation(Protocol):
    """What a session must know of the host's job."""

    width: int
    """Width of the base pass in pixels, a multiple of 8; `height` likewise."""
    height: int
    hires: bool
    final_size: tuple[int, int]
    """(width, height) of the finished picture: of the hires pass where there is one."""
    paints_mask: bool
    """The host itself paints within a mask and keeps what lies outside (img2img inpainting)."""
    seed: int
    unit_per_image: bool
    """Unit u of n acts on picture j of a batch only where j mod n = u (the peers' batch option)."""
    base: BaseModel
    base_id: str
    runtime: Runtime

    def pictures(self, unit: ControlNetUnit, spec: PreprocessorSpec) -> Sequence[Picture]:
        """The unit's own picture or the host's (one for each image of the batch), cropped as the host crops."""
        ...

    def sampling(self) -> Sampling:
        """The checkpoint's noise schedule and VAE."""
        ...


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
    hints: dict[Pass, Sequence[Hint]] = field(default_factory=dict[Pass, Sequence[Hint]])
    bound: BoundControl | None = None
    weights: tuple[float, ...] = ()
    rests: bool = False
    """The unit has no part in the pass that has begun (hires option)."""
    mismatch: BaseModelError | None = None
    """Why the U-Net in use cannot take this unit's model, if so; raised when the unit would act."""

    @property
    def spec(self) -> PreprocessorSpec:
        """The preprocessor's data sheet."""
        return self.results[0].spec


class ControlSession:
    """Owner of one generation's control: `prepare`, then `begin` a pass, `control` at each step, `close`."""

    def __init__(self, services: Services, generation: Generation) -> None:
        self._services = services
        self._generation = generation
        self._base = generation.base
        self.runs: list[UnitRun] = []
        self.effects = RunningEffects()

    def prepare(self, units: Iterable[ControlNetUnit]) -> None:
        """Preprocesses and loads for every enabled unit. Raises ControlNetError naming unit and field."""
        for unit in units:
            if unit.enabled:
                try:
                    self.runs += [self._prepare(part) for part in parted(unit)]
                except ControlNetError as error:
                    raise error.for_unit(unit.index) from error
        if any(run.unit.low_vram for run in self.runs):
            self._services.preprocess.unload()

    def begin(self, pass_: Pass, width: int, height: int) -> None:
        """Binds every unit to its hint for a pass of `width` x `height` pixels."""
        effects: list[tuple[GuidanceRange, Effect]] = []
        for run in self.runs:
            try:
                hints = self._hints(run, pass_, width, height)
                run.rests = self._rests(run, pass_)
                run.weights = self._weights(run, pass_)
                run.bound = run.model.bind(hints, self._options(run))
                if run.spec.effect and not run.rests:
                    effects.append((run.guidance, self._effect(run, pass_)))
            except ControlNetError as error:
                raise error.for_unit(run.unit.index) from error
        self.effects = RunningEffects(effects)

    @staticmethod
    def _hints(run: UnitRun, pass_: Pass, width: int, height: int) -> Sequence[Hint]:
        """A hint a map, in the pass's size; none where the preprocessor gives an embedding to an effect."""
        hints = run.hints.get(pass_)
        if hints is None or any(hint.size != (width, height) for hint in hints):
            maps = [] if run.spec.effect and not run.spec.returns_image else [result.map for result in run.results]
            hints = [hint_from_map(map_, width, height, run.resize_mode) for map_ in maps]
            run.hints[pass_] = hints
        return hints

    def rebase(self, base: BaseModel) -> None:
        """Another U-Net takes over (refiner, hires checkpoint): units that do not fit it raise when they would act."""
        self._base = base
        for run in self.runs:
            try:
                run.model.check(base)
                run.mismatch = None
            except BaseModelError as error:
                run.mismatch = BaseModelError(
                    error.problem,
                    unit=run.unit.index,
                    field="model",
                    found=f"{base.title} took over during the generation",
                    remedy="let the unit end before that (ending control step), or use one kind of checkpoint",
                )

    @torch.no_grad()
    def control(self, step: Step) -> Control | None:
        """The sum of what the active units add to one U-Net call, or None."""
        total: Control | None = None
        for run in self.runs:
            if not self._acts(run, step):
                continue
            if run.mismatch is not None:
                raise run.mismatch
            part = self._part(run, step, self._rows(run, step))
            if part is not None:
                total = part if total is None else total.merged(part)
        return total

    def close(self) -> None:
        """Lets go of hints and models; twice is fine."""
        self.runs = []
        self.effects = RunningEffects()

    def _prepare(self, unit: ControlNetUnit) -> UnitRun:
        spec = self._services.preprocess.entry(unit.preprocessor).spec
        if spec.id == "inpaint_only" and self._generation.paints_mask:  # as the peers
            log.warning("Unit %d: the host paints within a mask itself: inpaint_only becomes inpaint.", unit.index)
            unit = replace(unit, preprocessor="inpaint")
            spec = self._services.preprocess.entry(unit.preprocessor).spec
        model_name, model = self._model(unit, spec)
        pictures = self._generation.pictures(unit, spec)
        if not pictures:
            raise UnitError(
                "the unit is enabled and has no picture",
                field="image",
                found="no image",
                remedy="give the unit an image, use img2img, or disable the unit",
            )
        results = [self._map(unit, spec, picture) for picture in pictures]
        region = None if unit.region_mask is None else RegionMask(_plane(unit.region_mask))
        guidance = GuidanceRange(unit.guidance_start, unit.guidance_end)
        run = UnitRun(unit, model_name, model, results, pictures[0].resize_mode, guidance, region)
        self._weights(run, Pass.base)  # a wrong list of weights is found now, not while sampling
        return run

    def _model(self, unit: ControlNetUnit, spec: PreprocessorSpec) -> tuple[str, ControlModel]:
        if spec.model_free and spec.effect in discover():
            return NO_MODEL, NoModel()
        if spec.model_free or unit.model.strip().lower() in ("", NO_MODEL.lower()):
            raise UnitError(
                "the unit is enabled and has no model",
                field="model",
                found=unit.model,
                remedy="choose a control model, or disable the unit",
            )
        entry = self._services.library.find(unit.model)
        model = self._services.models.get(entry.path, self._generation.runtime, self._generation.base_id)
        model.check(self._generation.base)
        return entry.name, model

    def _map(self, unit: ControlNetUnit, spec: PreprocessorSpec, picture: Picture) -> PreprocessResult:
        ignore = bool(self._services.setting("controlnet_ignore_noninpaint_mask", False))
        picture = self._outpainted(spec, picture)
        image, mask = preprocessor_input(
            picture.image, picture.mask, accepts_mask=spec.accepts_mask, ignore_mask=ignore
        )
        return self._services.preprocess.run(
            unit.preprocessor,
            image,
            mask,
            resolution=unit.resolution,
            pixel_perfect=self._pixel_perfect(unit, picture),
            threshold_a=unit.threshold_a,
            threshold_b=unit.threshold_b,
            seed=self._generation.seed,
        )

    def _outpainted(self, spec: PreprocessorSpec, picture: Picture) -> Picture:
        """A picture that LaMa is to fill is brought to the job's size beforehand, so that the border is filled too."""
        if spec.id != "inpaint_only+lama" or picture.resize_mode is not ResizeMode.resize_and_fill:
            return picture
        mask = np.zeros(picture.image.shape[:2], np.uint8) if picture.mask is None else picture.mask
        fitted = fit_map(np.dstack([picture.image, mask]), *self._generation.final_size, picture.resize_mode)
        fitted = np.rint(fitted.clip(0, 255)).astype(np.uint8)
        return replace(picture, image=np.ascontiguousarray(fitted[:, :, :3]), mask=fitted[:, :, 3].copy())

    def _pixel_perfect(self, unit: ControlNetUnit, picture: Picture) -> int | None:
        if not unit.pixel_perfect:
            return None
        generation = self._generation
        return pixel_perfect_resolution(picture.image, generation.height, generation.width, picture.resize_mode)

    def _rests(self, run: UnitRun, pass_: Pass) -> bool:
        skipped = HiResOption.high if pass_ is Pass.base else HiResOption.low
        return self._generation.hires and run.unit.hr_option is skipped

    def _weights(self, run: UnitRun, pass_: Pass) -> tuple[float, ...]:
        unit = run.unit
        if self._rests(run, pass_):
            return (0.0,) * run.model.outputs
        return layer_weights(
            run.model.outputs,
            unit.weight,
            unit.control_mode,
            custom=unit.layer_weights,
            force_soft=pass_ is Pass.hires and run.spec.soft_weights_in_hires,
            legacy_ramp=bool(self._services.setting("controlnet_legacy_sdxl_ramp", False)),
        )

    def _effect(self, run: UnitRun, pass_: Pass) -> Effect:
        unit = run.unit
        return discover()[run.spec.effect](
            Setup(
                preprocessor=run.spec.id,
                hints=run.hints[pass_],
                tensors=[result.found.tensors or {} for result in run.results],
                params=run.results[0].params,
                weight=unit.weight,
                mode=unit.control_mode,
                pass_=pass_,
                sdxl=self._generation.base.config.adm_channels is not None,
                blur=int(self._services.setting("control_net_inpaint_blur_sigma", 7)),
                sampling=self._generation.sampling(),
            )
        )

    def _options(self, run: UnitRun) -> BindOptions:
        pooled = True if run.spec.id == "shuffle" else None
        return BindOptions(unit=run.unit.index, pooled=pooled, union_type=run.unit.union_type)

    @staticmethod
    def _acts(run: UnitRun, step: Step) -> bool:
        return run.guidance.contains(step.progress) and any(run.weights)

    def _rows(self, run: UnitRun, step: Step) -> list[int]:
        """The rows a unit has a say in; the others are not computed."""
        cond_only = run.unit.control_mode.cond_only or (run.bound is not None and run.bound.pooled)
        indices = sorted({other.unit.index for other in self.runs}) if self._generation.unit_per_image else []
        units, position = max(len(indices), 1), indices.index(run.unit.index) if indices else 0
        return [
            row
            for row in range(step.batch)
            if (step.is_cond[row] or not cond_only) and step.images[row] % units == position % units
        ]

    @staticmethod
    def _part(run: UnitRun, step: Step, rows: list[int]) -> Control | None:
        if run.bound is None:
            raise RuntimeError("control asked for before the pass began")
        if not rows:
            return None
        if run.unit.low_vram:
            run.model.move(step.x.device)
        part = run.bound.control(step.select(rows)).scaled(run.weights)
        if run.unit.low_vram:
            run.model.move(torch.device("cpu"))
        if run.region is not None:
            part = part.masked(run.region)
        if run.bound.pooled:
            part = part.pooled()
        return part.spread(rows, step.batch)


def _plane(mask: Pixels) -> torch.Tensor:
    """(H, W) uint8 -> (1, 1, H, W) float 0..1."""
    return torch.as_tensor(np.ascontiguousarray(mask), dtype=torch.float32)[None, None] / 255.0
