"""One generation: its units, their hints and their control. A host adapter makes and closes it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..core.errors import BaseModelError
from ..core.residuals import Residuals
from ..core.schedule import GuidanceRange
from ..core.step import Pass, Step
from ..core.units import ControlNetUnit
from ..families.base import BaseModel, BoundControl
from .acting import Acting, never_acted, not_called
from .active import Active
from .calls import Calls, said_of
from .effect import Computed, PassEffect
from .effect_told import odd_effect
from .generation import Generation, UnitRun
from .parts import Part
from .placement import Placement
from .preparation import UnitPreparation
from .services import Services
from .side_stream import SideStream
from .sites import LdmSites
from .tiles import TiledHint

_NO_BASE_PASS = "it did nothing: it acts in the first pass alone, and this job only enlarges a picture"


@dataclass(frozen=True, eq=False)
class Held:
    """What a session was doing in a pass that something else interrupts; see `ControlSession.hold`."""

    runs: list[UnitRun]
    calls: Calls | None
    active: list[list[Active]]
    pass_: Pass
    size: tuple[int, int]


@dataclass(frozen=True)
class Remark:
    """What a unit did not do in a pass, and why: a sentence for the user."""

    unit: int
    text: str


class ControlSession:
    """Owner of one generation's control: `prepare`, then a pass from `begin` to `end`, and `close`.

    In a pass each U-Net call is `begin_call`, the call itself with the control added, `end_call` where it ended well,
    and `done` whichever way it did.
    """

    def __init__(self, services: Services, generation: Generation) -> None:
        self._services = services
        self._generation = generation
        self._preparation = UnitPreparation(services, generation)
        self.runs: list[UnitRun] = []
        self.closed = False
        self._pass = Pass.base
        self._size = (generation.width, generation.height)
        self._calls: Calls | None = None
        """None before the first pass."""
        self._active: list[list[Active]] = []
        """What acts in the U-Net calls under way, the innermost last."""
        self._placement = Placement(services, generation.runtime, partial(_short_of_memory, weakref.ref(self)))
        self._side = SideStream()
        self.effects: list[PassEffect] = []
        """What each unit did in the passes that have ended."""
        weakref.finalize(self, self._placement.leave).atexit = False  # a job that broke off is never closed

    def prepare(self, units: Iterable[ControlNetUnit]) -> None:
        """Preprocesses and loads for every enabled unit. Raises ControlNetError naming unit and field."""
        enabled = [unit for unit in units if unit.enabled]
        low_vram = self._generation.runtime.low_vram or any(unit.low_vram for unit in enabled)
        for unit in enabled:
            with said_of(unit.index):
                self.runs += self._preparation.prepared(unit, low_vram)
        self._placement.adopt([model for run in self.runs for model in run.models], low_vram)

    def begin(self, pass_: Pass, width: int, height: int) -> None:
        """Binds every unit to its hint for a pass of `width` x `height` pixels."""
        self._pass, self._size = pass_, (width, height)
        self._calls = Calls(self.runs, self._size, self._generation, self._preparation, self._placement)
        for run in self.runs:
            run.acting, run.tile, run.tile_orders = Acting(), None, {}
            with said_of(run.unit.index):
                self._preparation.bind(run, pass_, width, height)
            run.took_part = run.took_part or not run.rests
        bounds = [part.bound for _, part in self._taking_part()]
        for bound in bounds:
            bound.meet(bounds)

    def hold(self) -> Held:
        """Another pass may be sampled with this session before the one that has begun goes on."""
        if self._placement.sparing:
            self._forget_kept()
            self._placement.leave()
        if self._calls is not None:
            self._calls.effects.paused = True
        held = Held(self.runs, self._calls, self._active, self._pass, self._size)
        _let_act(self._active, False)
        self._active = []
        self.runs = [copy(run) for run in self.runs]
        for run in self.runs:
            run.hints = dict(run.hints)
        return held

    def resume(self, held: Held) -> None:
        """The pass goes on that was held; nothing where the session was closed meanwhile."""
        if self.closed:
            return
        self.runs, self._calls, self._pass, self._size = held.runs, held.calls, held.pass_, held.size
        self._active = held.active
        if self._calls is not None:
            self._calls.effects.paused = False
        _let_act(self._active, True)

    @property
    def timed(self) -> bool:
        """Whether some unit does not act alike during the whole pass."""
        return any(run.guidance != GuidanceRange() or run.curve is not None for run in self.runs)

    @property
    def size(self) -> int:
        """Bytes on the device of the models that act, and of what is kept of residuals for later steps."""
        width, height = self._size
        rows = 2 * self._generation.batch_size  # with guidance
        kept = [run.model.residual_bytes(rows, height // 8, width // 8) for run in self.runs if run.reuses]
        return self._placement.size + 2 * sum(kept)  # and by how much they go on

    def _forget_kept(self) -> None:
        if self._calls is not None:
            self._calls.reuse.forget()

    def short_of_memory(self) -> None:
        """The device has no room for what is kept there for later steps."""
        if self._calls is not None:
            self._calls.reuse.give_up()

    def rebase(self, base: BaseModel) -> None:
        """Another U-Net takes over (refiner, hires checkpoint): units that do not fit it raise when they would act."""
        for run in self.runs:
            try:
                for model in run.models:
                    model.check(base)
                run.mismatch = None
            except BaseModelError as error:
                run.mismatch = BaseModelError(
                    error.problem,
                    unit=run.unit.index,
                    field="model",
                    found=f"{base.title} took over during the generation",
                    remedy="let the unit end before that (ending control step), or use one kind of checkpoint",
                )
        self._forget_kept()

    def attach(self, sites: LdmSites) -> None:
        """The pass's controls ask for their places in the U-Net in use; again where the host swaps it."""
        for run in self.runs:
            for part in run.parts if run.mismatch is None else ():
                part.plain = sites.plain
                with said_of(run.unit.index):
                    part.bound.attach(sites.of(part))
        sites.settle()
        if self._calls is not None and self._calls.gives_residuals:
            sites.watch_blocks(self._calls.effects.passed)

    def begin_call(self, step: Step) -> tuple[Step, Residuals | None]:
        """A U-Net call begins: the step as the U-Net is to get it, and what is to be added to it.

        Raises ControlNetError where a unit that is to act cannot.
        """
        if self.closed or self._calls is None:
            raise not_called(0, closed=True)
        calls = self._calls
        _let_act(self._active, False)
        if step.progress >= 1.0:  # an adaptive sampler past its plan, which NaN would keep going for ever
            self._check_residuals()
        calls.announced(step)
        calls.effects.begin(step)
        self._placement.settle({model for run in calls.in_range(step) for model in run.models})
        active = calls.active(step)
        step = calls.conditioned(step, active)

        def residuals(given: Step) -> Residuals | None:
            return calls.residuals(given, active)

        control = self._side.control(step, residuals) if self._overlaps(step) else residuals(step)
        calls.prepare(step, active)
        calls.effects.open()
        self._active.append(active)
        _let_act(self._active, True)
        return step, control

    def end_call(self, output: Tensor, left: Sequence[str]) -> Tensor:
        """The call's prediction (B, 4, h, w), for the host; `left` names the places where residuals were not added.

        Raises HostError if there are any, or other places that were passed by.
        """
        self._side.finish()
        if self._calls is None or not self._active:
            return output
        return self._calls.ended(output, self._active[-1], left)

    def done(self) -> None:
        """A call that has begun is over, whichever way."""
        if self._calls is not None:
            self._calls.effects.done()
        _let_act(self._active, False)
        del self._active[-1:]
        _let_act(self._active, True)

    def start_noise(self, noise: Tensor) -> Tensor:
        """The noise (B, 4, h, w) of variance 1 from which the pass starts, one row a picture."""
        for run, part in self._taking_part():
            if type(part.bound).start_noise is not BoundControl.start_noise:
                noise = self._of_pictures(run, noise, part.bound.start_noise)
        return noise

    def decoded(self, picture: Tensor, index: int) -> Tensor:
        """The decoded picture (3, H, W) in 0..1 of place `index` in its batch. Another size than the pass's fails."""
        for run, part in self._taking_part():
            if type(part.bound).decoded is BoundControl.decoded or not self.has_say(run, index):
                continue
            new = part.bound.decoded(picture, index)
            if run.region is not None:
                new = torch.lerp(picture, new, run.region.at(new[None])[0])
            picture = _as_far(picture, new, run, index)
        return picture

    def end(self, steps: int) -> list[Remark]:
        """A sampling of `steps` denoiser steps has ended: which units did nothing, or computed what was to be reused.

        Where the host is short of the device's memory it gets that of the models for what comes next: decoding.
        Raises ControlNetError for a unit that was to act and did not.
        """
        self._forget_kept()
        self._placement.rest(*self._size)
        said: list[Remark] = []
        for run in self.runs:
            run.tile, run.tile_orders = None, {}  # a tiler may leave its last piece there
            text = self._judged(run, steps) or ("" if self._calls is None else self._calls.reuse.told(run))
            if text:
                said.append(Remark(run.unit.index, text))
        if self.closed:
            raise not_called(steps, closed=True)
        return said + self._of_effects(steps)

    def _of_effects(self, steps: int) -> list[Remark]:
        """Keeps how strongly each unit acted in the pass, and says where that was too little or too much."""
        found = {} if self._calls is None else self._calls.effects.read()
        computed: dict[int, Computed] = {} if self._calls is None else self._calls.reuse.computed()
        effects = {
            unit: PassEffect(unit, self._pass, steps, moments, computed.get(unit)) for unit, moments in found.items()
        }
        self.effects += effects.values()
        runs = {run.unit.index: run for run in self.runs if run.unit.index in effects}
        texts = {unit: odd_effect(run, effects) for unit, run in runs.items()}
        return [Remark(unit, text) for unit, text in texts.items() if text]

    def taken_effects(self) -> list[PassEffect]:
        """What each unit did in the passes that have ended since the last time."""
        taken, self.effects = self.effects, []
        return taken

    def _judged(self, run: UnitRun, steps: int) -> str:
        """Why a unit rightly did nothing, "" where it acted or has no part in the pass."""
        if run.rests:
            return "" if run.took_part or self._pass is Pass.base else _NO_BASE_PASS
        with said_of(run.unit.index):
            run.acting.check()
            if run.idle_by_choice:
                return f"it did nothing: {run.idle_by_choice}"
            if self._calls is None or not self._calls.count:
                raise not_called(steps, closed=False)
            if self._generation.batch_size == 1 and any(part.bound.among_pictures for part in run.parts):
                return "it did nothing: it makes the pictures of a batch alike, and there is one"
            if not run.acting.in_range:
                return f"it did nothing: {_out_of_range(run, steps)}"
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

    def break_off(self) -> None:
        """A sampling ended before its time: nothing of it is left on the device."""
        self._forget_kept()
        self._placement.leave()

    def hint_for(self, index: int, pass_: Pass) -> Tensor:
        """The hint of `runs[index]` for a pass, (1, 3, H, W), or 4 with its region mask; before the pass begins too.

        Raises UnitError where the unit has not one hint but several, or none.
        """
        generation = self._generation
        planned = generation.final_size if pass_ is Pass.hires else (generation.width, generation.height)
        begun = self._calls is not None and pass_ is self._pass
        return self._preparation.whole_hint(self.runs[index], pass_, self._size if begun else planned)

    def whole_hint(self, index: int) -> Tensor:
        """As `hint_for`, for the pass that has begun."""
        return self._preparation.whole_hint(self.runs[index], self._pass, self._size)

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
        _let_act(self._active, False)
        self.runs, self._calls, self._active = [], None, []
        self.closed = True

    def _check_residuals(self) -> None:
        for run in self.runs:
            with said_of(run.unit.index):
                run.acting.check()

    def _taking_part(self) -> Iterator[tuple[UnitRun, Part]]:
        return ((run, part) for run in self.runs if run.takes_part for part in run.parts)

    def has_say(self, run: UnitRun, image: int) -> bool:
        """The unit acts on this picture of the batch, as far as the batch option says."""
        return self._calls is not None and self._calls.has_say(run, image)

    def _of_pictures(self, run: UnitRun, given: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """`given` (B, 4, h, w), one row a picture of the batch, changed where the unit has its say."""
        new = change(given)
        if run.region is not None:
            new = torch.lerp(given, new, run.region.at(given))
        rows = [
            _as_far(given[row], new[row], run, row) if self.has_say(run, row) else given[row]
            for row in range(len(given))
        ]
        return torch.stack(rows)


def _short_of_memory(own: weakref.ref[ControlSession]) -> None:
    """Tells the session of its placement, which must not keep it alive: see `ControlSession.__init__`."""
    session = own()
    if session is not None:
        session.short_of_memory()


def _as_far(given: Tensor, new: Tensor, run: UnitRun, image: int) -> Tensor:
    """What becomes of a picture of the batch by its own strength, which cannot be more than the whole here."""
    share = min(run.strength(True, image), 1.0)
    return new if share == 1.0 else torch.lerp(given, new, share)


def _out_of_range(run: UnitRun, steps: int) -> str:
    start, end = run.guidance.start, run.guidance.end
    if run.curve is None:
        return f"none of the {steps} steps falls into its range, {start:g} to {end:g}"
    return f"its weight schedule {run.curve} is 0 at each of the {steps} steps that fall into {start:g} to {end:g}"


def _let_act(active: Sequence[Sequence[Active]], acts: bool) -> None:
    """What is active in the innermost call acts in the U-Net's layers, or no longer."""
    for one in active[-1] if active else ():
        one.part.call = one.call if acts else None
