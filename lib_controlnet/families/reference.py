"""reference: the U-Net looks at the unit's picture while it draws, without a control model.

As sd-webui-controlnet (scripts/hook.py, Lvmin Zhang 2023): before a step the picture, noised as far, goes through the
U-Net once ("write") and leaves self-attention inputs or feature statistics in banks, which the step proper reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ..core.checkpoint import of_rows
from ..core.errors import HostError
from ..core.hints import Hint
from ..core.modes import ControlMode
from ..core.placed import NoiseAhead, Placed
from ..core.precision import computed_in
from ..core.sites import AttentionPatch, AttentionPlace, SiteCall, UNetSites
from ..core.step import Pass, Step
from .base import BoundControl, OwnControl, UnitSettings

Bank = TypeVar("Bank")
Part = TypeVar("Part")

_LEAST_VARIANCE = 1e-6
_SEED_AFTER = 1
"""The reference's noise is drawn with the job's seed and this, so that it is not the job's own noise again."""


class Reference(BoundControl):
    """`weight` says how many layers take part, 0..2; style fidelity how little uncond rows see of the picture, 0..1.

    Control modes stand in for the fidelity as in the peer: "ControlNet is more important" means 1, "My prompt is more
    important" and the hires pass mean 0.
    """

    obeys_mode = False

    def __init__(self, hints: Sequence[Hint], settings: UnitSettings) -> None:
        self._settings = settings
        self._checkpoint = settings.checkpoint()
        self._latents = Placed(self._checkpoint.latents(hints))
        self._noise = NoiseAhead(self._checkpoint.seed + _SEED_AFTER)
        self._fidelity = _fidelity(settings)
        self._layers: list[_Attention | _Statistics] = []
        self._places = _Places()

    def meet(self, others: Sequence[BoundControl]) -> None:
        """Several references count alike where they act on one place: see `_Place`."""
        references = [other for other in others if isinstance(other, Reference)]
        self._places = references[0]._places
        self._places.several = len(references) > 1

    def attach(self, sites: UNetSites) -> None:
        """The widest blocks' self-attentions first; blocks' outputs as in the peer."""
        weight = self._settings.weight
        self._layers = []
        if self._settings.options["attention"]:
            for place, least in _attentions(sites.attentions("attn1"), weight):
                attention = _Attention(self._fidelity, least, self._places.at(place.name))
                sites.attention(place, attention)
                self._layers.append(attention)
        if self._settings.options["adain"]:
            for name, least in _blocks(sites, weight, self._settings.sdxl):
                statistics = _Statistics(self._fidelity, least, self._places.at(name))
                sites.after(name, statistics.styled, watch=statistics.watched)
                self._layers.append(statistics)

    def prepare(self, step: Step, plain: Callable[[Step], None]) -> None:
        """The picture, noised as far as `step`, passes through the U-Net and leaves what the layers see of it."""
        latents = of_rows(self._latents.like(step.x), step)
        latents = latents.expand(step.batch, -1, -1, -1)
        noise = step.kept.of(self._noise.next(latents.shape, step), _places(step))
        x = self._checkpoint.noised(latents.float(), step.timesteps, noise.float()).to(step.x)
        if step.x.shape[1] == 9:  # an inpainting checkpoint: nothing is to be painted, all is known
            x = torch.cat([x, torch.zeros_like(x[:, :1]), latents], dim=1)
        self._forget()
        plain(replace(step, x=x))

    def predicted(self, step: Step, output: Tensor) -> Tensor:
        """Nothing is changed, but what the layers saw is let go of."""
        self._forget()
        return output

    def _forget(self) -> None:
        for layer in self._layers:
            layer.bank = None
        self._places.forget()


def _places(step: Step) -> tuple[int, ...]:
    """Where the noise of each row is: it is drawn conds first, whatever order a host's rows have."""
    order = sorted(range(step.batch), key=lambda row: not step.is_cond[row])
    return tuple(order.index(row) for row in range(step.batch))


def _fidelity(settings: UnitSettings) -> float:
    if settings.mode is ControlMode.control:
        return 1.0
    if settings.mode is not ControlMode.balanced or settings.pass_ is Pass.hires:
        return 0.0
    fidelity = min(max(settings.params[0], 0.0), 1.0)
    return fidelity**3 if settings.sdxl else fidelity


def _mixed(seen: Tensor, plain: Callable[[Sequence[int]], Tensor], step: Step, fidelity: float) -> Tensor:
    """`seen` (B, ...), whose uncond rows are drawn back to `plain(rows)` as far as the fidelity says."""
    rows = tuple(row for row, cond in enumerate(step.is_cond) if not cond)
    if fidelity <= 1e-5 or not rows:
        return seen
    kept = step.kept
    mixed = seen.clone()
    kept.put(mixed, rows, torch.lerp(kept.of(seen, rows), plain(rows).to(seen), fidelity))
    return mixed


class _Place(Generic[Part]):
    """Where several references may act on one and the same tensor, one after the other.

    As in the peer they count alike: the mean of what they show is taken, and of their fidelities. So the second goes
    back to what the first was given, and does both; where what it gets is not what the first made (a region mask, other
    rows), it is on its own.
    """

    def __init__(self, several: bool = False) -> None:
        """several: more than one acts; else nothing is kept, which would hold every layer's tensors for a call."""
        self._several = several
        self._kept: tuple[Tensor, tuple[Part, ...], Tensor] | None = None

    def before(self, given: Tensor) -> tuple[Tensor, tuple[Part, ...]]:
        """What the first of them was given, and what those before have to say."""
        if self._kept is None or self._kept[2] is not given:
            return given, ()
        return self._kept[0], self._kept[1]

    def keep(self, first: Tensor, parts: tuple[Part, ...], made: Tensor) -> Tensor:
        """`made` is what they made of `first`."""
        if self._several:
            self._kept = first, parts, made
        return made

    def forget(self) -> None:
        """The call is over."""
        self._kept = None


class _Places:
    """The places of the references of one pass, by name."""

    def __init__(self) -> None:
        self.several = False
        self._places: dict[str, _Place[Any]] = {}

    def at(self, name: str) -> _Place[Any]:
        return self._places.setdefault(name, _Place(self.several))

    def forget(self) -> None:
        for place in self._places.values():
            place.forget()


@dataclass(frozen=True, eq=False)
class _Bank:
    """A reference's tokens (B, N, C) at one self-attention, in the type in which it computes with them."""

    kept: Tensor
    version: int | None
    """How often they had been written to when they were kept; None where PyTorch does not count that."""

    @classmethod
    def of(cls, tokens: Tensor) -> _Bank:
        """Not copied: a norm has made them for this attention, which reads them only; `tokens` sees to that."""
        kept = tokens.detach().to(computed_in(tokens))
        return cls(kept, None if kept.is_inference() else kept._version)

    def tokens(self) -> Tensor:
        """The tokens. Raises HostError where somebody has written over them since."""
        if self.version is not None and self.kept._version != self.version:
            raise HostError(
                "what the U-Net's attention saw of the reference was written over",
                found="an attention that changes its input in place",
                remedy="switch off the extension or option that replaces the U-Net's attention",
            )
        return self.kept


class _Attention(AttentionPatch):
    """A self-attention whose tokens also attend to the reference's tokens."""

    def __init__(self, fidelity: float, least: float, place: _Place[float]) -> None:
        """least: the weight that a step must exceed."""
        self._fidelity = fidelity
        self._least = least
        self._place = place
        self.bank: _Bank | None = None

    def watched(self, tokens: Tensor) -> None:
        self.bank = _Bank.of(tokens)

    def further(self, call: SiteCall, tokens: Tensor) -> Tensor | None:
        del tokens
        return _seen(self.bank).tokens() if call.weight > self._least else None

    def seen(self, call: SiteCall, output: Tensor, plain: Callable[[Sequence[int]], Tensor]) -> Tensor:
        first, fidelities = self._place.before(output)
        fidelities = (*fidelities, self._fidelity)
        made = _mixed(first, plain, call.step, sum(fidelities) / len(fidelities))
        return self._place.keep(first, fidelities, made)


class _Statistics:
    """A block whose features take the mean and variance that the reference's features have (AdaIN)."""

    def __init__(self, fidelity: float, least: float, place: _Place[_Moments]) -> None:
        """least: the weight that a step must exceed."""
        self._fidelity = fidelity
        self._least = least
        self._place = place
        self.bank: tuple[Tensor, Tensor] | None = None

    def watched(self, features: Tensor) -> None:
        """The reference passes."""
        self.bank = _moments(features)

    def styled(self, call: SiteCall, features: Tensor) -> Tensor:
        """(B, C, h, w) -> the same with the reference's moments."""
        if call.weight <= self._least:
            return features
        first, wanted = self._place.before(features)
        wanted = (*wanted, _Moments(*_seen(self.bank), self._fidelity))
        mean, deviation = _moments(first)
        styled = (first.float() - mean) / deviation * _deviation(wanted) + _mean([one.mean for one in wanted])
        kept, fidelity = call.step.kept, sum(one.fidelity for one in wanted) / len(wanted)
        mixed = _mixed(styled, lambda rows: kept.of(first, rows), call.step, fidelity)
        return self._place.keep(first, wanted, mixed.to(first.dtype))


@dataclass(frozen=True, eq=False)
class _Moments:
    """Of a reference's features, each (B, C, 1, 1); and how little uncond rows take of them."""

    mean: Tensor
    deviation: Tensor
    fidelity: float


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tuple(tensors)).mean(0)


def _deviation(wanted: Sequence[_Moments]) -> Tensor:
    """The root of the mean variance."""
    if len(wanted) == 1:
        return wanted[0].deviation
    return _mean([one.deviation.square() for one in wanted]).sqrt()


def _seen(bank: Bank | None) -> Bank:
    if bank is None:
        raise HostError(
            "the reference did not pass by a layer that is to look at it",
            found="a layer that was left out",
            remedy="switch off the extension or option that skips layers of the U-Net",
        )
    return bank


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of each row, (B, C, 1, 1) float32: the variance passes float16."""
    variance, mean = torch.var_mean(features.float(), dim=(2, 3), keepdim=True, correction=0)
    return mean, variance.clamp(min=_LEAST_VARIANCE).sqrt()


def _attentions(places: Sequence[AttentionPlace], weight: float) -> Iterable[tuple[AttentionPlace, float]]:
    """The widest first: the i-th of n takes part where the weight exceeds i / n, which is given with it."""
    ordered = sorted(places, key=lambda place: -place.channels)
    with_least = [(place, number / len(ordered)) for number, place in enumerate(ordered)]
    return [(place, least) for place, least in with_least if weight > least]


def _blocks(sites: UNetSites, weight: float, sdxl: bool) -> Iterable[tuple[str, float]]:
    """Each with the weight that has to be exceeded.

    The middle always; deep input blocks first, deep output blocks too. A weight of 2 takes all.

    The blocks are those of SD 1.x and SDXL; of a smaller U-Net, those it has.
    """
    inputs = [f"input_blocks.{i}" for i in ((4, 5, 7, 8) if sdxl else (4, 5, 7, 8, 10, 11))]
    inputs = [name for name in inputs if sites.has(name)]
    outputs = [name for i in range(6 if sdxl else 8) if sites.has(name := f"output_blocks.{i}")]
    thresholds = [("middle_block", 0.0)]
    thresholds += [(name, 2.0 * (1.0 - place / len(inputs))) for place, name in enumerate(inputs)]
    thresholds += [(name, 2.0 * place / len(outputs)) for place, name in enumerate(outputs)]
    return [(name, threshold) for name, threshold in thresholds if weight > threshold]


EFFECT = OwnControl("reference", Reference)
