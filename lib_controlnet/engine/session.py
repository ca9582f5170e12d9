"""One generation: its units, their hints and their control. A host adapter makes and closes it."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..core.batch import parted
from ..core.errors import BaseModelError, ControlNetError, HostError
from ..core.hints import Hint
from ..core.precision import own_types
from ..core.residuals import RegionMask, Residuals
from ..core.step import Pass, Step
from ..core.units import ControlNetUnit
from ..effects.running import RunningEffects
from ..families.base import BaseModel, BoundControl
from .acting import Acting, never_acted, not_called
from .generation import Generation, UnitRun
from .placement import Placement
from .preparation import UnitPreparation
from .services import Services
from .side_stream import SideStream
from .tiles import TiledHint

_NO_BASE_PASS = "it did nothing: it acts in the first pass alone, and this job only enlarges a picture"


@dataclass(frozen=True, eq=False)
class Held:
    """What a session was doing in a pass that something else interrupts; see `ControlSession.hold`."""

    runs: list[UnitRun]
    effects: RunningEffects
    pass_: Pass
    size: tuple[int, int]
    calls: int
    begun: bool


@dataclass(frozen=True)
class Idle:
    """A unit that did nothing in a pass because its settings say so: a sentence for the user."""

    unit: int
    text: str


@contextmanager
def _said_of(unit: int) -> Generator[None, None, None]:
    """What is raised inside names `unit`."""
    try:
        yield
    except ControlNetError as error:
        raise error.for_unit(unit) from error


class ControlSession:
    """Owner of one generation's control: `prepare`, then a pass from `begin` to `end`, and `close`.

    In a pass each U-Net call is `begin_call`, the call itself with the control added, `end_call`.
    """

    def __init__(self, services: Services, generation: Generation) -> None:
        self._services = services
        self._generation = generation
        self._preparation = UnitPreparation(services, generation)
        self.runs: list[UnitRun] = []
        self.effects = RunningEffects()
        self.closed = False
        self._pass = Pass.base
        self._size = (generation.width, generation.height)
        self._calls = 0
        self._begun = False
        self._placement = Placement(services, generation.runtime)
        self._side = SideStream()
        weakref.finalize(self, self._placement.leave).atexit = False  # a job that broke off is never closed

    def prepare(self, units: Iterable[ControlNetUnit]) -> None:
        """Preprocesses and loads for every enabled unit. Raises ControlNetError naming unit and field."""
        enabled = [unit for unit in units if unit.enabled]
        low_vram = self._generation.runtime.low_vram or any(unit.low_vram for unit in enabled)
        for unit in enabled:
            with _said_of(unit.index):
                self.runs += [self._preparation.prepare(part, low_vram) for part in parted(unit)]
        self._placement.adopt([run.model for run in self.runs], low_vram)

    def begin(self, pass_: Pass, width: int, height: int) -> None:
        """Binds every unit to its hint for a pass of `width` x `height` pixels."""
        self._pass, self._size, self._calls, self._begun = pass_, (width, height), 0, True
        for run in self.runs:
            run.acting, run.tile, run.tile_orders = Acting(), None, {}
            with _said_of(run.unit.index):
                run.effect = self._preparation.bind(run, pass_, width, height)
            run.took_part = run.took_part or not run.rests
        self.effects = RunningEffects([(run.guidance, run.effect) for run in self.runs if run.effect is not None])

    def hold(self) -> Held:
        """Another pass may be sampled with this session before the one that has begun goes on."""
        runs = [copy(run) for run in self.runs]
        for run in runs:
            run.hints = dict(run.hints)
        if self._placement.sparing:
            self._placement.leave()
        return Held(runs, self.effects, self._pass, self._size, self._calls, self._begun)

    def resume(self, held: Held) -> None:
        """The pass goes on that was held; nothing where the session was closed meanwhile."""
        if self.closed:
            return
        self.runs, self.effects, self._pass, self._size = held.runs, held.effects, held.pass_, held.size
        self._calls, self._begun = held.calls, held.begun

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

    def begin_call(self, unet: nn.Module, step: Step) -> tuple[Step, Residuals | None]:
        """A U-Net call begins: the step as the U-Net is to get it, and what is to be added to it.

        Raises ControlNetError where a unit that is to act cannot.
        """
        if self.closed:
            raise not_called(0, closed=True)
        self._calls += 1
        if step.progress >= 1.0:  # an adaptive sampler past its plan, which NaN would keep going for ever
            self._check_residuals()
        for run in self._in_range(step):
            run.acting.in_range += 1
            self._check_size(run, step)
        step = self.effects.conditioned(step)
        control = self._side.control(step, self.control) if self._overlaps(step) else self.control(step)
        self.effects.before(unet, step)
        return step, control

    def end_call(self, step: Step, output: Tensor, left: Sequence[str]) -> Tensor:
        """The call's prediction (B, 4, h, w), for the host; `left` names the places where control was not added.

        Raises HostError if there are any.
        """
        self._side.finish()
        acting = [run for run in self._in_range(step) if run.effect is not None or self._rows(run, step)]
        if left and acting:
            raise HostError(
                "control was computed and the U-Net did not take it",
                unit=acting[0].unit.index,
                field="model",
                found=f"{len(left)} places that were passed by: {', '.join(left[:4])}{' …' if len(left) > 4 else ''}",
                remedy="switch off the extension or option that replaces the U-Net's blocks or runs their layers",
            )
        for run in acting:
            run.acting.acted += 1
        return self.effects.after(step, output)

    def end(self, steps: int) -> list[Idle]:
        """A sampling of `steps` denoiser steps has ended: the units that did nothing because their settings say so.

        Where the host is short of the device's memory it gets that of the models for what comes next: decoding.
        Raises ControlNetError for a unit that was to act and did not.
        """
        self._placement.rest(*self._size)
        idle: list[Idle] = []
        for run in self.runs:
            run.tile, run.tile_orders = None, {}  # a tiler may leave its last piece there
            text = self._judged(run, steps)
            if text:
                idle.append(Idle(run.unit.index, text))
        if self.closed:
            raise not_called(steps, closed=True)
        return idle

    def _judged(self, run: UnitRun, steps: int) -> str:
        """Why a unit rightly did nothing, "" where it acted or has no part in the pass."""
        if run.rests:
            return "" if run.took_part or self._pass is Pass.base else _NO_BASE_PASS
        with _said_of(run.unit.index):
            run.acting.check()
            if run.idle_by_choice and run.effect is None:
                return f"it did nothing: {run.idle_by_choice}"
            if not self._calls:
                raise not_called(steps, closed=False)
            if not run.acting.in_range:
                start, end = run.guidance.start, run.guidance.end
                return f"it did nothing: none of the {steps} steps falls into its range, {start:g} to {end:g}"
            if self._generation.unit_per_image and not run.acting.with_rows:
                return "it did nothing: no picture of the batch is its own"
            if not run.acting.acted:
                raise never_acted(run.acting)
        return ""

    def _overlaps(self, step: Step) -> bool:
        """Control is computed beside the U-Net's encoder: where asked for, on CUDA, and with memory for both."""
        if step.x.device.type != "cuda" or self._generation.runtime.device.type != "cuda":
            return False
        wanted = self._services.setting("controlnet_side_stream", False)
        return bool(wanted) and not self._side.useless and not self._placement.sparing

    @torch.no_grad()
    def control(self, step: Step) -> Residuals | None:
        """The sum of what the active units add to one U-Net call, or None."""
        in_range = [run for run in self._in_range(step) if any(run.weights)]
        self._placement.settle({run.model for run in in_range})
        going_on = {run.model for run in in_range if run.guidance.end > step.progress}
        acting = self._with_rows(step)
        parts: dict[int, Residuals] = {}
        total, added = None, 0  # summed in the order of the units, whichever computes first
        for place in self._placement.in_turn([run.model for run, _ in acting], going_on):
            parts[place] = self._part(step, *acting[place])
            while added in parts:
                part = parts.pop(added)
                total, added = part if total is None else total.merged(part), added + 1
        return total

    def _with_rows(self, step: Step) -> list[tuple[UnitRun, list[int]]]:
        """The units that have something to compute in this call, with their rows."""
        found: list[tuple[UnitRun, list[int]]] = []
        for run in self._in_range(step):
            rows = self._rows(run, step)
            run.acting.with_rows += bool(rows)
            if not rows or not any(run.weights):
                continue
            if run.mismatch is not None:
                raise run.mismatch
            found.append((run, rows))
        return found

    def break_off(self) -> None:
        """A sampling ended before its time: nothing of it is left on the device."""
        self._placement.leave()

    def hint_for(self, index: int, pass_: Pass) -> Tensor:
        """The hint of `runs[index]` for a pass, (1, 3, H, W), or 4 with its region mask; before the pass begins too.

        Raises UnitError where the unit has not one hint but several, or none.
        """
        generation = self._generation
        planned = generation.final_size if pass_ is Pass.hires else (generation.width, generation.height)
        begun = self._begun and pass_ is self._pass
        return self._preparation.whole_hint(self.runs[index], pass_, self._size if begun else planned)

    def tile(self, index: int, tensor: Tensor) -> None:
        """From now on `tensor` (T, 3 or 4, H, W) stands in for the hint of `runs[index]`; the hint itself ends that."""
        run = self.runs[index]
        tiled = TiledHint(tensor, run.tile_orders)
        whole = tiled.size == self._size and self._is_whole(run, tensor)
        run.tile = None if whole else tiled

    def _is_whole(self, run: UnitRun, tensor: Tensor) -> bool:
        hint = self._preparation.whole_hint(run, self._pass, self._size)
        return all(part.shape == hint.shape[1:] and torch.equal(part, hint[0].to(part)) for part in tensor)

    def close(self) -> None:
        """Lets go of hints and models; twice is fine."""
        self._placement.close()
        self.runs = []
        self.effects = RunningEffects()
        self.closed = True

    def _check_residuals(self) -> None:
        for run in self.runs:
            with _said_of(run.unit.index):
                run.acting.check()

    def _in_range(self, step: Step) -> list[UnitRun]:
        return [run for run in self.runs if not run.rests and run.guidance.contains(step.progress)]

    def _check_size(self, run: UnitRun, step: Step) -> None:
        """A hint belongs to a size: a piece of the latent must come with its piece of the hint."""
        height, width = step.x.shape[-2:]
        expected = self._size if run.tile is None or run.effect is not None else run.tile.size
        if step.again and run.tile is None and not run.idle_by_choice:
            raise HostError(
                "the picture is drawn in windows, each of which would get the whole of the unit's hint",
                unit=run.unit.index,
                field="image",
                found=f"more U-Net calls than one denoiser call of {step.group} rows needs",
                remedy="switch off what draws in windows (such as DemoFusion), or disable the unit",
            )
        if run.idle_by_choice or (width * 8, height * 8) == (expected[0] // 8 * 8, expected[1] // 8 * 8):
            return
        raise HostError(
            "the U-Net was called with a latent of another size than the unit's hint",
            unit=run.unit.index,
            field="image",
            found=f"a latent of {width}x{height} with a hint for {expected[0] // 8}x{expected[1] // 8}",
            remedy="switch off what cuts the picture into tiles or enlarges it while it is drawn, or disable the unit",
        )

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

    def _part(self, step: Step, run: UnitRun, rows: list[int]) -> Residuals:
        if run.bound is None:
            raise RuntimeError("control asked for before the pass began")
        bound, region = run.bound, run.region
        if run.tile is not None:
            bound, region, step = self._of_tile(run, run.tile, step, rows)
        selected, (width, height) = step.select(rows), self._size
        with _said_of(run.unit.index), own_types((step.x.device, self._generation.runtime.device)):
            part = self._placement.compute(
                run.model, lambda: bound.control(selected), f"{len(rows)} rows of {width}x{height}"
            )
            run.acting.measure(part)
        part = part.scaled(run.weights)
        if region is not None:
            part = part.masked(region)
        if bound.pooled:
            part = part.pooled()
        return part.spread(rows, step.batch, step.kept)

    def _of_tile(
        self, run: UnitRun, tile: TiledHint, step: Step, rows: list[int]
    ) -> tuple[BoundControl, RegionMask | None, Step]:
        """The unit bound to the pieces of this call, the pieces of its region, and a step whose pictures are pieces."""
        with _said_of(run.unit.index):
            pieces = tile.pieces(step)
        hint = Hint(pieces.images, None, run.results[0].map)
        bound = run.model.bind([hint], self._preparation.options(run))
        region = (
            None
            if pieces.regions is None
            else RegionMask(step.kept.of(pieces.regions, [pieces.of_row[row] for row in rows]))
        )
        return bound, region, replace(step, images=pieces.of_row)
