"""One generation: its units, their hints and their control. A host adapter makes and closes it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..core.batch import parted
from ..core.control import Control
from ..core.errors import BaseModelError, ControlNetError
from ..core.schedule import GuidanceRange
from ..core.step import Pass, Step
from ..core.units import ControlNetUnit
from ..effects.base import Effect
from ..effects.running import RunningEffects
from ..families.base import BaseModel
from .generation import Generation, UnitRun
from .preparation import UnitPreparation
from .services import Services


class ControlSession:
    """Owner of one generation's control: `prepare`, then `begin` a pass, `control` at each step, `close`."""

    def __init__(self, services: Services, generation: Generation) -> None:
        self._services = services
        self._generation = generation
        self._preparation = UnitPreparation(services, generation)
        self.runs: list[UnitRun] = []
        self.effects = RunningEffects()

    def prepare(self, units: Iterable[ControlNetUnit]) -> None:
        """Preprocesses and loads for every enabled unit. Raises ControlNetError naming unit and field."""
        for unit in units:
            if unit.enabled:
                try:
                    self.runs += [self._preparation.prepare(part) for part in parted(unit)]
                except ControlNetError as error:
                    raise error.for_unit(unit.index) from error
        if any(run.unit.low_vram for run in self.runs):
            self._services.preprocess.unload()

    def begin(self, pass_: Pass, width: int, height: int) -> None:
        """Binds every unit to its hint for a pass of `width` x `height` pixels."""
        effects: list[tuple[GuidanceRange, Effect]] = []
        for run in self.runs:
            try:
                effect = self._preparation.bind(run, pass_, width, height)
            except ControlNetError as error:
                raise error.for_unit(run.unit.index) from error
            if effect is not None:
                effects.append((run.guidance, effect))
        self.effects = RunningEffects(effects)

    def rebase(self, base: BaseModel) -> None:
        """Another U-Net takes over (refiner, hires checkpoint): units that do not fit it raise when they would act."""
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
