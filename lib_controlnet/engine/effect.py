"""How strongly each unit acts: the norm of what it added, beside that of what it was added to.

Residuals are compared with the features that the U-Net's own blocks gave; what acts in layers with what each layer gave
without it, at a few of its places. Nothing waits for the device: norms stay there until the pass is over, and are read
at once. A unit's figure is of its own rows and region alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import Tensor

from ..core.norms import norms
from ..core.residuals import RegionMask, Residuals
from ..core.step import Pass, Step

RESIDUALS, LAYERS = "residuals", "layers"
_ENCODER, _MIDDLE = "input_blocks", "middle_block"

Changed = Callable[[Tensor, Tensor, "Tensor | float | None"], None]
"""(what a layer gave, what became of it, where the unit has a say)."""


@dataclass(frozen=True)
class Moment:
    """One denoiser call of a pass: its number from 1, and the share that the unit added to what was there.

    kind: RESIDUALS or LAYERS, which cannot be compared with each other. progress: of the sampling, 0..1.
    """

    turn: int
    share: float
    kind: str
    progress: float


@dataclass(frozen=True)
class Computed:
    """Denoiser calls in which a unit's residuals were computed, and those of them in which those of the cond
    rows alone were."""

    calls: int
    halved: int


@dataclass(frozen=True)
class PassEffect:
    """What one unit did in a pass of `turns` denoiser calls: `moments` are those in which it acted.

    computed: of how many its residuals were computed, with reuse control; None without.
    """

    unit: int
    pass_: Pass
    turns: int
    moments: tuple[Moment, ...]
    computed: Computed | None = None

    @property
    def peak(self) -> float:
        """Its largest share."""
        return max((moment.share for moment in self.moments), default=0.0)

    @property
    def mean(self) -> float:
        """Over the calls in which it acted."""
        return sum(moment.share for moment in self.moments) / len(self.moments) if self.moments else 0.0

    @property
    def steps(self) -> list[float]:
        """Its share in every denoiser call, 0 where it did not act."""
        shares = {moment.turn: moment.share for moment in self.moments}
        return [shares.get(turn, 0.0) for turn in range(1, self.turns + 1)]


@dataclass(eq=False)
class _Sums:
    """Norms of what was added and of what was there, () each on the device; factors of the former."""

    added: list[Tensor] = field(default_factory=list[Tensor])
    factors: list[float] = field(default_factory=list[float])
    base: list[Tensor] = field(default_factory=list[Tensor])


@dataclass(frozen=True, eq=False)
class _Given:
    """The residuals of one control in a call: norms by place, of its rows alone."""

    units: Sequence[int]
    rows: Sequence[int]
    batch: int
    region: RegionMask | None
    blocks: Sequence[str]
    areas: Sequence[int]
    norms: Sequence[Tensor]


@dataclass(eq=False)
class _Call:
    """A U-Net call under way."""

    step: Step
    open: bool = False
    """The U-Net itself runs, and no plain call of a control's own before it."""
    given: list[_Given] = field(default_factory=list[_Given])
    blocks: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """What the U-Net's blocks gave, until the last that is needed."""
    sums: dict[tuple[int, str], _Sums] = field(default_factory=dict[tuple[int, str], _Sums])

    def of(self, unit: int, kind: str) -> _Sums:
        return self.sums.setdefault((unit, kind), _Sums())


@dataclass(frozen=True, eq=False)
class _Kept:
    """Of one unit in one call: norms (n,), each on its device."""

    unit: int
    kind: str
    turn: int
    progress: float
    added: Tensor
    factors: Sequence[float]
    base: Tensor


class Effects:
    """Of the units of one pass."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        """Those under way, the innermost last."""
        self._kept: list[_Kept] = []
        self.paused = False
        """Another pass is sampled with the same U-Net, whose blocks give nothing of this one's."""

    def begin(self, step: Step) -> None:
        """A U-Net call is about to be prepared."""
        self._calls.append(_Call(step))

    def open(self) -> None:
        """The prepared call begins."""
        self._calls[-1].open = True

    def end(self) -> None:
        """The call ended well: what it has shown counts."""
        for (unit, kind), sums in self._calls[-1].sums.items():
            added, base = torch.stack(sums.added), torch.stack(sums.base)
            step = self._calls[-1].step
            self._kept.append(_Kept(unit, kind, step.turn, step.progress, added, sums.factors, base))

    def done(self) -> None:
        """The call is over, whichever way."""
        del self._calls[-1:]

    @torch.no_grad()
    def added(self, units: Sequence[int], rows: Sequence[int], region: RegionMask | None, part: Residuals) -> None:
        """`part`, as it is added to those `rows` of the call under way, comes of `units`."""
        if not self._calls:
            return
        places = part.places()
        names = [_MIDDLE if place == "middle" else f"{_ENCODER}.{index}" for place, index in places]
        tensors = [tensor for place, index in places if (tensor := part.at(place, index)) is not None]
        areas = [math.prod(tensor.shape[2:]) for tensor in tensors]
        call = self._calls[-1]
        call.given.append(_Given(units, rows, call.step.batch, region, names, areas, norms(tensors)))

    def of_unit(self, unit: int) -> Changed:
        """Who is told what became of a layer's output in the call under way."""
        return partial(self._changed, unit)

    @torch.no_grad()
    def _changed(self, unit: int, given: Tensor, new: Tensor, where: Tensor | float | None) -> None:
        if not self._calls:
            return
        sums = self._calls[-1].of(unit, LAYERS)
        added, base = norms([new - given, given if where is None else given * where])
        sums.added.append(added)
        sums.factors.append(1.0)
        sums.base.append(base)

    @torch.no_grad()
    def passed(self, name: str, output: Tensor) -> None:
        """A block of the U-Net gave `output` (B, C, h, w), before anything is added to it."""
        call = self._calls[-1] if self._calls and not self.paused else None
        if call is None or not call.open or not any(name in given.blocks for given in call.given):
            return
        call.blocks[name] = output
        if name == _MIDDLE or all(block in call.blocks for given in call.given for block in given.blocks):
            self._compare(call)

    def _compare(self, call: _Call) -> None:
        """All blocks have been passed: theirs are the features that residuals are added to."""
        whole = all(given.region is None and len(given.rows) == given.batch for given in call.given)
        parts = {name: [tensor] if whole else list(tensor.unbind(0)) for name, tensor in call.blocks.items()}
        flat = iter(norms([part for each in parts.values() for part in each]))
        found = {name: [next(flat) for _ in each] for name, each in parts.items()}
        for given in call.given:
            if any(name not in found for name in given.blocks):
                continue  # a block that somebody else ran for the U-Net
            for unit in given.units:
                sums = call.of(unit, RESIDUALS)
                sums.added += given.norms
                sums.factors += [
                    math.sqrt(math.prod(call.blocks[name].shape[2:]) / area)  # pooled, or fitted to an odd size
                    for name, area in zip(given.blocks, given.areas, strict=True)
                ]
                sums.base += _base(call, given, found)
        call.given.clear()
        call.blocks.clear()

    def read(self) -> dict[int, tuple[Moment, ...]]:
        """What was gathered, by unit; waits for the device. What acts in two ways counts by the stronger.

        Calls in which something was not finite are left out.
        """
        numbers = iter(_numbers([tensor for kept in self._kept for tensor in (kept.added, kept.base)]))
        squares: dict[tuple[int, int, str], tuple[float, float, float]] = {}
        for kept in self._kept:
            weighed = [value * factor for value, factor in zip(next(numbers), kept.factors, strict=True)]
            key = (kept.unit, kept.turn, kept.kind)
            added, base, _ = squares.get(key, (0.0, 0.0, 0.0))
            squares[key] = added + _square(weighed), base + _square(next(numbers)), kept.progress
        self._kept.clear()
        shares: dict[int, dict[int, Moment]] = {}
        for (unit, turn, kind), (added, base, progress) in squares.items():
            moment = Moment(turn, math.sqrt(added / base) if base > 0 else math.inf, kind, progress)
            own = shares.setdefault(unit, {})
            if math.isfinite(moment.share) and (turn not in own or own[turn].share < moment.share):
                own[turn] = moment
        return {unit: tuple(own[turn] for turn in sorted(own)) for unit, own in shares.items() if own}


def _square(values: Sequence[float]) -> float:
    return sum(value * value for value in values)


def _numbers(tensors: Sequence[Tensor]) -> list[list[float]]:
    """The numbers of each of `tensors` (n,), which are waited for once a device."""
    read: dict[int, list[float]] = {}
    for device in dict.fromkeys(tensor.device for tensor in tensors):
        own = [place for place, tensor in enumerate(tensors) if tensor.device == device]
        values = cast("list[float]", torch.cat([tensors[place] for place in own]).cpu().tolist())  # pyright: ignore[reportUnknownMemberType]
        for place in own:
            count = len(tensors[place])
            read[place], values = values[:count], values[count:]
    return [read[place] for place in range(len(tensors))]


def _base(call: _Call, given: _Given, found: dict[str, list[Tensor]]) -> list[Tensor]:
    """Norms of the features that the control's rows have, where it has its say."""
    if given.region is None:
        return [norm for name in given.blocks for norm in _rows(found[name], given)]
    region, kept = given.region, call.step.kept
    tensors = [kept.of(call.blocks[name], given.rows) for name in given.blocks]
    return norms([tensor * region.at(tensor) for tensor in tensors])


def _rows(found: list[Tensor], given: _Given) -> list[Tensor]:
    return found if len(found) == 1 else [found[row] for row in given.rows]
