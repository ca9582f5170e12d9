"""The U-Net calls of a pass: which units act in each, with which rows and how strongly, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from ..core.errors import ControlNetError, HostError
from ..core.hints import Hint
from ..core.precision import own_types, types_of_now
from ..core.residuals import RegionMask, Residuals
from ..core.step import Step
from ..families.base import BoundControl
from .active import Active
from .effect import Effects
from .generation import Generation, UnitRun
from .joining import Joining
from .parts import PREDICTION, Part, PartCall
from .placement import Placement
from .preparation import UnitPreparation
from .reuse import Reuse
from .tiles import TiledHint

Result = TypeVar("Result")


@contextmanager
def said_of(unit: int) -> Generator[None, None, None]:
    """What is raised inside names `unit`."""
    try:
        yield
    except ControlNetError as error:
        raise error.for_unit(unit) from error


class Calls:
    """The calls of one pass of `size` (width, height) pixels with `runs`."""

    def __init__(
        self,
        runs: Sequence[UnitRun],
        size: tuple[int, int],
        generation: Generation,
        preparation: UnitPreparation,
        placement: Placement,
    ) -> None:
        self._runs = runs
        self._size = size
        self._generation = generation
        self._preparation = preparation
        self._placement = placement
        self._joining = Joining()
        self.reuse = Reuse(placement.make_room)
        self.effects = Effects()
        self.count = 0

    @property
    def gives_residuals(self) -> bool:
        """Some control of the pass gives what is added to the U-Net's blocks."""
        bounds = [part.bound for run in self._runs for part in run.parts]
        return any(type(bound).residuals is not BoundControl.residuals for bound in bounds)

    def in_range(self, step: Step) -> list[UnitRun]:
        """The units that are to act at `step`."""
        return [run for run in self._runs if run.acts_at(step.progress)]

    def announced(self, step: Step) -> None:
        """A call begins: counts it for the units in range. Raises HostError where their hints do not fit it."""
        self.count += 1
        self.reuse.announced(step)
        for run in self.in_range(step):
            run.acting.in_range += 1
            self._check_size(run, step)

    def active(self, step: Step) -> list[Active]:
        """The controls that have a say in a call. Raises BaseModelError for one that cannot have it."""
        found: list[Active] = []
        for run in self.in_range(step):
            acting = [Active(run, part, call) for part in run.parts if (call := self._call(run, part, step)).rows]
            run.acting.with_rows += bool(acting)
            if acting and run.mismatch is not None:
                raise run.mismatch
            found += [one for one in acting if any(one.call.weights)]
        return found

    def conditioned(self, step: Step, active: Sequence[Active]) -> Step:
        """The step with the context and y that the U-Net is to get."""
        for one in active:
            if type(one.bound).condition is not BoundControl.condition:
                with said_of(one.run.unit.index):
                    step = one.call.conditioned(step, one.bound.condition)
        return step

    @torch.no_grad()
    def residuals(self, step: Step, active: Sequence[Active]) -> Residuals | None:
        """The sum of what the controls add to one U-Net call, or None."""
        going_on = {one.part.model for one in active if one.run.acts_after(step.progress)}
        giving = [one for one in active if type(one.bound).residuals is not BoundControl.residuals]
        giving = self._joining.joined(giving)
        parts: dict[int, Residuals | None] = {}
        total, added = None, 0  # summed in the order of the units, whichever computes first
        for place in self._placement.in_turn([one.part.model for one in giving], going_on):
            parts[place] = self._residuals_of(step, giving[place])
            while added in parts:
                part, added = parts.pop(added), added + 1
                if part is not None:
                    total = part if total is None else total.merged(part)
        return total

    @torch.no_grad()
    def prepare(self, step: Step, active: Sequence[Active]) -> None:
        """What the controls need of the U-Net before the call in which they then act."""
        self._placement.stay([one.part.model for one in active if one.bound.in_layers])
        prompts = [one for one in active if one.bound.in_prompt]
        for one in [*prompts, *(one for one in active if one not in prompts)]:
            one.call.step = step.select(one.call.rows)
            one.call.told, one.call.heard = self.effects.of_unit(one.run.unit.index), one.part.heard(one.call)
            if type(one.bound).prepare is not BoundControl.prepare:
                with said_of(one.run.unit.index):
                    self._prepared(one, prompts, types_of_now(step.x.device))

    def _prepared(
        self, one: Active, prompts: Sequence[Active], types: Callable[[], AbstractContextManager[object]]
    ) -> None:
        """`prompts`: what a U-Net call of its own hears. `types`: those in which the U-Net computes."""
        with one.part.looking_on() as unet:

            def plain(step: Step) -> None:
                with types(), self._hearing(step, [other for other in prompts if other is not one]):
                    unet(step)

            self._computed(one, lambda: one.bound.prepare(one.call.step, plain))

    @contextmanager
    def _hearing(self, step: Step, prompts: Sequence[Active]) -> Generator[None, None, None]:
        """What is heard as a prompt acts in a U-Net call that a control makes, in the rows in which it has a say."""
        try:
            for one in prompts:
                call = self._call(one.run, one.part, step)
                call.step = step.select(call.rows)
                one.part.call = call if call.rows else None
            yield
        finally:
            for one in prompts:
                one.part.call = None

    def ended(self, output: Tensor, active: Sequence[Active], left: Sequence[str]) -> Tensor:
        """The call's prediction, for the host. `left` names the places where residuals were not added.

        Raises HostError if there are any, or places that the call did not pass.
        """
        for one in active:
            missed = [*left, *one.part.passed_by()]
            if missed:
                raise _not_taken(one.run.unit.index, missed)
        for run in dict.fromkeys(one.run for one in active):
            run.acting.acted += 1
        for one in active:
            output = self._predicted(output, one)
        self.effects.end()
        return output

    def _predicted(self, output: Tensor, one: Active) -> Tensor:
        share = min(max(one.run.weight_at(one.call.step.progress), 0.0), 1.0)

        def mixed(given: Tensor) -> Tensor:
            wanted = one.bound.predicted(one.call.step, given)
            return given if wanted is given else torch.lerp(given.float(), wanted.float(), share)

        if type(one.bound).predicted is BoundControl.predicted:
            return output
        with said_of(one.run.unit.index):
            return one.call.changed(output, mixed, place=PREDICTION).to(output.dtype)

    def _residuals_of(self, step: Step, one: Active) -> Residuals | None:
        run, bound, region, rows = one.run, one.bound, one.call.region, one.call.rows
        with said_of(run.unit.index):
            if run.tile is not None:
                bound, region, step = self._of_tile(one, run.tile, step)
            selected = step.select(rows)
            part = self.reuse.residuals(one, selected, lambda rows: self._computed(one, lambda: bound.residuals(rows)))
            if part is None:
                return None
            for each in (run, *one.along):
                each.acting.measure(part)
        part = part.scaled(one.call.weights)
        if region is not None:
            part = part.masked(region)
        if one.call.strengths is not None:
            part = part.times(step.kept.strengths(one.call.strengths, step.x.device))
        if bound.pooled:
            part = part.pooled()
        self.effects.added([each.unit.index for each in (run, *one.along)], rows, region, part)
        return part.spread(rows, step.batch, step.kept)

    def _computed(self, one: Active, ask: Callable[[], Result]) -> Result:
        """What a control gives while its network is on the device, in the types that it asks for."""
        width, height = self._size
        with own_types((one.call.step.x.device, self._generation.runtime.device)):
            return self._placement.compute(one.part.model, ask, f"{len(one.call.rows)} rows of {width}x{height}")

    def _of_tile(self, one: Active, tile: TiledHint, step: Step) -> tuple[BoundControl, RegionMask | None, Step]:
        """The unit bound to the pieces of this call, the pieces of its region, and a step whose pictures are pieces."""
        pieces = tile.pieces(step)
        hint = Hint(pieces.images, None, one.run.results[0].map)
        bound = one.part.model.bind([hint], one.run.settings)
        region = (
            None
            if pieces.regions is None
            else RegionMask(step.kept.of(pieces.regions, [pieces.of_row[row] for row in one.call.rows]))
        )
        return bound, region, replace(step, images=pieces.of_row)

    def _call(self, run: UnitRun, part: Part, step: Step) -> PartCall:
        rows = tuple(self._rows(run, part, step))
        weights = run.layers(step.progress) if part.model.outputs else (run.weight_at(step.progress),)
        strengths = tuple(run.strength(step.is_cond[row], step.images[row]) for row in rows)
        even = all(strength == 1.0 for strength in strengths)
        return PartCall(step, rows, step.batch, run.region, weights, None if even else strengths)

    def _rows(self, run: UnitRun, part: Part, step: Step) -> list[int]:
        """The rows a control has a say in; the others are not computed."""
        cond_only = run.cond_only(part)
        return [
            row
            for row in range(step.batch)
            if (step.is_cond[row] or not cond_only)
            and self.has_say(run, step.images[row])
            and run.strength(step.is_cond[row], step.images[row])
        ]

    def has_say(self, run: UnitRun, image: int) -> bool:
        """Whether a unit may act on a picture of the batch."""
        if not run.strength(True, image):
            return False
        if not self._generation.unit_per_image:
            return True
        if any(part.bound.among_pictures for part in run.parts):
            return True
        own = [other for other in self._runs if not any(part.bound.among_pictures for part in other.parts)]
        indices = sorted({other.unit.index for other in own})
        return image % len(indices) == indices.index(run.unit.index)

    def _check_size(self, run: UnitRun, step: Step) -> None:
        """A hint belongs to a size: a piece of the latent must come with its piece of the hint."""
        spatial = [part for part in run.parts if part.bound.spatial]
        if not spatial and run.region is None:
            return
        height, width = step.x.shape[-2:]
        by_pieces = run.tile is not None and all(part.bound.piecewise for part in spatial)
        expected = run.tile.size if run.tile is not None and by_pieces else self._size
        if step.again and run.tile is None:
            raise HostError(
                "the picture is drawn in windows, each of which would get the whole of the unit's hint",
                unit=run.unit.index,
                field="image",
                found=f"more U-Net calls than one denoiser call of {step.group} rows needs",
                remedy="switch off what draws in windows (such as DemoFusion), or disable the unit",
            )
        if (width * 8, height * 8) == (expected[0] // 8 * 8, expected[1] // 8 * 8):
            return
        raise HostError(
            "the U-Net was called with a latent of another size than the unit's hint",
            unit=run.unit.index,
            field="image",
            found=f"a latent of {width}x{height} with a hint for {expected[0] // 8}x{expected[1] // 8}",
            remedy="switch off what cuts the picture into tiles or enlarges it while it is drawn, or disable the unit",
        )


def _not_taken(unit: int, missed: Sequence[str]) -> HostError:
    return HostError(
        "control was computed and the U-Net did not take it",
        unit=unit,
        field="model",
        found=f"{len(missed)} places that were passed by: {', '.join(missed[:4])}{' …' if len(missed) > 4 else ''}",
        remedy="switch off the extension or option that replaces the U-Net's blocks or runs their layers",
    )
