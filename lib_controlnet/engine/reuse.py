"""Residuals that a network gave at an earlier denoiser call and that serve again while they hardly change.

What a ControlNet adds depends on the latents, which change slowly while a picture is drawn. Two things decide whether
residuals are computed or those of an earlier call serve ("Reuse control", off by default):

- the schedule: the first two calls of a unit are computed, and none serves for more than a fifth of the pass's calls;
- the change, measured for each unit whenever its residuals are computed anew: they serve while, as they changed last,
  they are expected to have changed by less than the unit's budget.

What serves goes on as it went: AHEAD of the last change between two computed calls, for each call since. Noise does not
go on, and where a sampler adds it everything stays as it was.

Where each picture has one cond row and in the same U-Net call an uncond row beside it (`Pairs`), both go on as the cond
row went, and from the third on every other computation is of the cond rows alone, but for short passes: the uncond
row's residuals move as those of the cond row have. So their difference, which guidance multiplies, changes only where
both are computed, and a computation costs half.

No call waits for the device. A change is measured there, and looked at LAG denoiser calls later, when it has long been
copied. To look at it at once would be a wait; to take it whenever it happens to have come would let pictures depend on
the speed of the machine.

Weights, curves, layer weights, strengths, region masks and pooling act on what serves as on what was computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core.residuals import Residuals
from ..core.step import Step
from .active import Active
from .effect import Computed
from .generation import UnitRun

FIRST = 2
"""Calls that are computed before any residuals serve again: a change needs two."""
LAG = 2
"""Denoiser calls after which a measured change is looked at."""
PARTS = 5
"""Residuals serve for one of so many parts of a pass's denoiser calls at most, that for which they were computed
included; but for FEWEST_APART in a pass that is so short."""
FEWEST_APART = 2
"""Denoiser calls from one computed to the next at least, where the change allows it. Where this is a fifth of the pass,
so much happens between two calls that all rows are computed each time."""
AHEAD = 0.5
"""Of the last change, in proportion to the calls since, by which residuals that serve are moved. Not all of it: the
change itself grows and turns, most of all from the first calls of a pass to those in its middle."""
FEWEST = 6
"""Denoiser calls of a pass that is long enough; in shorter ones every call changes too much."""

Later = Callable[[], float]
"""A number that the device computes, for when it is there."""


@dataclass(eq=False)
class _Kept:
    """Residuals with what they were computed from as far as a key does not tell it."""

    residuals: Residuals
    read: tuple[Tensor, ...]
    """Context and y, where comparing them costs nothing."""
    turn: int
    drift: Residuals | None = None
    """By how much they are expected to move at each call; None where nothing tells it."""
    count: int = 1
    """How many times they have been computed."""
    whole: bool = True
    """All of their rows were, the last time."""
    used: int = 0
    """The last denoiser call that had them."""
    known: tuple[int, float] | None = None
    """The last change that is known, and over how many denoiser calls."""
    measured: list[tuple[int, int, Later]] = field(default_factory=list[tuple[int, int, Later]])
    """(denoiser call, calls since the one before, change) of those that are not known yet."""

    def at(self, turn: int) -> Residuals:
        """As they are expected to be at a later denoiser call; new tensors."""
        if self.drift is None:
            return self.residuals
        drifts = iter(self.drift.outputs())
        return self.residuals.changed(lambda kept: torch.add(kept, next(drifts), alpha=turn - self.turn))

    def changed(self, turn: int, age: int) -> float | None:
        """By how much they are expected to have changed `age` denoiser calls later; None where nothing is known.

        From a change over fewer calls in proportion, from one over more as a random walk does: rather too much.
        """
        while self.measured and self.measured[0][0] + LAG <= turn:
            _, span, change = self.measured.pop(0)
            self.known = span, change()
        if self.known is None:
            return None
        span, change = self.known
        return change * (age / span if age > span else math.sqrt(age / span))


@dataclass(eq=False)
class _Tally:
    """What became of one unit's calls."""

    computed: int = 0
    """Denoiser calls in which something was computed."""
    halved: int = 0
    """Those of them in which nothing was for uncond rows that have a say."""
    served: int = 0
    refused: str = ""
    """Why some were computed whatever the change."""
    _turn: int = 0
    _half: bool = False
    """All that was computed in the denoiser call under way."""

    def computes(self, turn: int, half: bool = False) -> None:
        """In a U-Net call of denoiser call `turn`, 0 where nobody told; `half`: its cond rows alone."""
        if turn != self._turn or not turn:
            self.computed += 1
            self.halved += half
            self._half = half
        elif self._half and not half:
            self.halved -= 1
            self._half = False
        self._turn = turn


@dataclass(frozen=True)
class Pairs:
    """Rows of a call: `cond[i]` and `uncond[i]` are of one picture, which has no others."""

    cond: tuple[int, ...]
    uncond: tuple[int, ...]

    @classmethod
    def of(cls, step: Step) -> Pairs | None:
        """Of a call's rows, in whose order they stay; None where some have no such other."""
        places = {(step.is_cond[row], step.images[row]): row for row in range(step.batch)}
        images = tuple(dict.fromkeys(step.images))  # frames of a film hear of each other in the order of their rows
        if len(places) != step.batch or step.batch != 2 * len(images):
            return None
        cond, uncond = (tuple(places[is_cond, image] for image in images) for is_cond in (True, False))
        return cls(cond, uncond)

    def moved(self, kept: Residuals, new: Residuals, step: Step) -> Residuals:
        """`kept` of all rows with `new` ones for the cond rows, and for the others what they moved by."""
        made, rows = iter(new.outputs()), step.kept

        def whole(tensor: Tensor) -> Tensor:
            now = next(made)
            change = now - rows.of(tensor, self.cond)
            both = torch.empty_like(tensor)
            rows.put(both, self.cond, now)
            rows.put(both, self.uncond, rows.of(tensor, self.uncond) + change)
            return both

        return kept.changed(whole)

    def alike(self, change: Residuals, step: Step) -> Residuals:
        """`change` with that of the cond row for its uncond row too."""
        rows = step.kept

        def both(tensor: Tensor) -> Tensor:
            cond, made = rows.of(tensor, self.cond), torch.empty_like(tensor)
            rows.put(made, self.cond, cond)
            rows.put(made, self.uncond, cond)
            return made

        return change.changed(both)


class Reuse:
    """The kept residuals of one pass. `later`: how to read a number of the device without a wait.

    make_room: is told the bytes that are about to be kept, once for each place that keeps some.
    """

    def __init__(self, make_room: Callable[[int], None], later: Callable[[Tensor], Later | None] | None = None) -> None:
        self._make_room = make_room
        self._later = read_later if later is None else later
        self._kept: dict[Hashable, _Kept] = {}
        self._tallies: dict[UnitRun, _Tally] = {}
        self._turn = 0
        self._place = 0
        """Of the U-Net call under way among those of its denoiser call."""
        self._pairs = self._paired = False
        """Whether all rows come in pairs: so far in the denoiser call under way, and in the one before."""
        self._short = False

    def announced(self, step: Step) -> None:
        """A U-Net call begins."""
        paired = Pairs.of(step) is not None
        if step.turn == self._turn:
            self._place += 1
            self._pairs = self._pairs and paired
            return
        self._pairs, self._paired = paired, self._pairs
        stale = [key for key, kept in self._kept.items() if kept.used < self._turn]
        for key in stale:  # rows were laid out in another way since, or the unit did not act
            del self._kept[key]
        self._turn, self._place = step.turn, 0

    def residuals(self, one: Active, step: Step, compute: Callable[[Step], Residuals | None]) -> Residuals | None:
        """What `compute` gives for `step`, the rows of the call in which the control has a say, or gave before.

        It may be asked for some of them only.
        """
        runs = (one.run, *one.along)
        budget = min(run.unit.reuse_control for run in runs)
        if budget <= 0.0 or not one.part.model.reusable:
            return compute(step)
        tallies = [self._tallies.setdefault(run, _Tally()) for run in runs]
        refused = self._refused(one, step)
        if refused:
            for tally in tallies:
                tally.refused = refused
                tally.computes(step.turn)
            return compute(step)
        key = self._key(one, step)
        kept = self._kept.get(key)
        if kept is not None and not _reads_the_same(kept, step):
            self._kept.pop(key)  # how it changed between two prompts tells nothing
            kept = None
        if kept is not None and self._serves(kept, step, budget):
            kept.used = step.turn
            for tally in tallies:
                tally.served += 1
            return kept.at(step.turn)
        # Where rows of the last denoiser call had no such other, a picture has more prompts, in another U-Net call.
        pairs = Pairs.of(step) if self._paired else None
        may = kept is not None and kept.whole and kept.count >= FIRST and _longest(step) > FEWEST_APART
        halves = pairs if may else None
        for tally in tallies:
            tally.computes(step.turn, halves is not None)
        if kept is None or halves is None:
            return self._keep(key, compute(step), step, pairs)
        part = compute(step.select(halves.cond))
        made = None if part is None else halves.moved(kept.residuals, part, step)
        return self._keep(key, made, step, pairs, whole=False)

    def computed(self) -> dict[int, Computed]:
        """Of each unit that asks for reuse."""
        return {run.unit.index: Computed(tally.computed, tally.halved) for run, tally in self._tallies.items()}

    def forget(self) -> None:
        """Nothing that was kept serves any more: the U-Net is another, or the pass is over."""
        self._kept.clear()

    def give_up(self) -> None:
        """The device has no memory to keep anything in."""
        self.forget()
        self._short = True

    def told(self, run: UnitRun) -> str:
        """What is to be said of a unit that asked for reuse and had none of it, "" otherwise."""
        tally = self._tallies.get(run)
        if tally is None or tally.served:
            return ""
        why = tally.refused or (
            f"its control changed by more than {run.unit.reuse_control:g} between steps"
            if tally.computed > FIRST
            else ""
        )
        return f"reuse control had no effect, every step was computed: {why}" if why else ""

    def _refused(self, one: Active, step: Step) -> str:
        """Why a call is computed whatever the change, "" where it need not be."""
        if self._short:
            return "the device's memory is too small to keep control"
        if one.run.tile is not None or step.again:
            return "the picture is drawn in tiles"
        if not step.turn or not step.planned:
            return "nothing tells how far the sampling is"
        if step.planned < FEWEST:
            return f"the sampling has only {step.planned} calls of the model, between which control changes too much"
        return ""

    def _key(self, one: Active, step: Step) -> Hashable:
        """Equal where residuals may serve: the same control for the same rows, of the same size, in the same order."""
        origin = (one.bound,) if one.origin is None else one.origin
        x, context = step.x, step.context
        given = (x.shape, x.dtype, x.device, context.shape, step.told, step.prompts, step.pass_)
        return (origin, self._place, one.call.batch, one.call.rows, step.is_cond, step.images, given)

    def _serves(self, kept: _Kept, step: Step, budget: float) -> bool:
        age = step.turn - kept.turn
        changed = kept.changed(step.turn, age)
        if kept.count < FIRST or not 0 < age < _longest(step):
            return False
        # Not known yet, or never on this device: nothing serves twice.
        return age == 1 if changed is None else changed < budget

    def _keep(
        self, key: Hashable, residuals: Residuals | None, step: Step, pairs: Pairs | None, *, whole: bool = True
    ) -> Residuals | None:
        """`residuals`, which were computed at `step`, in place of those that were kept before."""
        before = self._kept.get(key)
        if residuals is None or self._short:
            self._kept.pop(key, None)
            return residuals
        made = _Kept(residuals, _read(step), step.turn, whole=whole, used=step.turn)
        if before is None:
            self._make_room(size_of(residuals))
        else:
            if not step.noisy:
                if before.drift is None:
                    self._make_room(size_of(residuals))
                change = drift(residuals, before.residuals, step.turn - before.turn)
                made.drift = change if pairs is None else pairs.alike(change, step)
            made.count, made.known, made.measured = before.count + 1, before.known, before.measured
            share = self._later(change_of(residuals, before.residuals))
            if share is not None:
                made.measured.append((step.turn, step.turn - before.turn, share))
        self._kept[key] = made
        return residuals


def _longest(step: Step) -> int:
    """Denoiser calls for which residuals serve at most, that for which they were computed included."""
    return max(-(-step.planned // PARTS), FEWEST_APART)


def drift(new: Residuals, old: Residuals, span: int) -> Residuals:
    """By how much `new` are to be moved at each call from now on, when `old` were computed `span` calls before."""
    before = iter(old.outputs())
    return new.changed(lambda tensor: (tensor - next(before)) * (AHEAD / span))


def change_of(new: Residuals, old: Residuals) -> Tensor:
    """By how much of itself the row that changed most has changed, () float32: |new - old| / |new| over all outputs."""
    difference, whole = (
        torch.stack([_squares(tensor) for tensor in tensors]).sum(dim=0)
        for tensors in ([a - b for a, b in zip(new.outputs(), old.outputs(), strict=True)], new.outputs())
    )
    return (difference / whole).sqrt().amax()


def _squares(tensor: Tensor) -> Tensor:
    """(B,) float32: the sums of the squares of each row."""
    return tensor.float().square().sum(dim=(1, 2, 3))


def size_of(residuals: Residuals) -> int:
    """Bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in residuals.outputs())


def read_later(value: Tensor, streams: Any = torch.cuda) -> Later | None:
    """The number () of the device for when it is there; None where it cannot be had without a wait.

    streams: `torch.cuda`, or what stands in for it.
    """
    if value.device.type == "cpu":
        number = float(value)
        return lambda: number
    if value.device.type != "cuda":
        return None
    copied, done = value.to("cpu", non_blocking=True), streams.Event()
    done.record(streams.current_stream(value.device))

    def read() -> float:
        done.synchronize()  # two denoiser calls later that has long happened
        return float(copied)

    return read


def _read(step: Step) -> tuple[Tensor, ...]:
    """What residuals depend on beside the latents: compared on the processor only, since a card would be waited for."""
    if step.x.device.type != "cpu":
        return ()
    return (step.context,) if step.y is None else (step.context, step.y)


def _reads_the_same(kept: _Kept, step: Step) -> bool:
    return all(torch.equal(*pair) for pair in zip(kept.read, _read(step), strict=True))
