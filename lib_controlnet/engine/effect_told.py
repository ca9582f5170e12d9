"""Says in plain words where a unit did next to nothing, or so much that it drowns the rest, and the likely reason.

Shares differ between models: 0.2 of the U-Net's own features is next to nothing for one and all for another. So the
weight that was really used counts too, and other units of the pass are what the strongest is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..core.modes import ControlMode
from ..measure.metrics import expected_kind
from ..measure.suspect import suspicion
from .effect import RESIDUALS, PassEffect
from .generation import UnitRun

LITTLE = 0.02
"""A share below this is next to nothing, whatever the model."""
WEAK = 0.1
"""So is what is multiplied by this or less: on the demo model adherence stays within 0.04 of none at all."""
RARE = 0.05
"""And what acts in this part of the steps or less."""
MUCH = 10.0
"""A share above this leaves nothing of the U-Net's own features; the demo's models, trained for it, use up to 8."""
TIMES = 10.0
"""A unit that adds so many times what another one does leaves nothing of that."""


def odd_effect(run: UnitRun, effects: Mapping[int, PassEffect]) -> str:
    """A sentence for the user about `run` among the units of a pass, "" where nothing is odd."""
    own = effects[run.unit.index]
    acted = len(own.moments)
    weight = _weight(run, own)
    if not acted:
        return ""
    if own.turns > 1 and acted <= own.turns * RARE:
        start, end = run.guidance.start, run.guidance.end
        return (
            f"it did next to nothing: it acted in {acted} of {own.turns} steps, since its range is {start:g} to {end:g}"
        )
    if own.peak < LITTLE or weight <= WEAK:
        share = f"it did next to nothing: at most {percent(own.peak)} of what it was added to"
        return f"{share}; {_why_little(run, weight)}"
    if own.peak > MUCH:
        share = f"it drowns the picture: it added {own.peak:.0f} times what it was added to"
        return f"{share}; {_why_much(run, weight)}"
    return _beside(run, own, effects)


def _weight(run: UnitRun, effect: PassEffect) -> float:
    """The largest factor that any of its outputs had for any picture, in the calls in which it acted."""
    progress = {moment.progress for moment in effect.moments}
    factors = [abs(factor) for at in progress for factor in (run.layers(at) or (run.weight_at(at),))]
    strengths = run.unit.batch_weights or (1.0,)
    return max(factors, default=0.0) * max(map(abs, strengths))


def _why_little(run: UnitRun, weight: float) -> str:
    if weight <= WEAK:
        what = {
            ControlMode.prompt: f'its weight is {weight:g} with "{ControlMode.prompt.value}"',
        }.get(run.unit.control_mode, f"its weight is {weight:g} at most")
        return f"{what}: raise it"
    wrong = _wrong_map(run)
    if wrong:
        return wrong
    return "its weight is not the reason: look whether its map shows what you want, and its model fits the checkpoint"


def _why_much(run: UnitRun, weight: float) -> str:
    if weight > 1.0:
        return f"its weight is {weight:g}: lower it"
    return _wrong_map(run) or "lower its weight, or let it end earlier"


def _wrong_map(run: UnitRun) -> str:
    kind = expected_kind(run.spec, run.model_name)
    maps = (result.map for result in run.results if result.found.tensors is None)
    found = (suspicion(map_, kind) for map_ in maps)
    return next((one.text for one in found if one is not None), "")


def _beside(run: UnitRun, own: PassEffect, effects: Mapping[int, PassEffect]) -> str:
    """What is to be said of the unit beside the weakest of those that gave residuals in the same steps."""
    mine = _residuals(own)
    means: list[tuple[float, int]] = []
    for other in effects.values():
        theirs = _residuals(other)
        both = mine.keys() & theirs.keys()
        if other.unit != own.unit and both:
            sums = [sum(shares[turn] for turn in both) for shares in (mine, theirs)]
            means.append((sums[0] / sums[1] if sums[1] else 0.0, other.unit))
    times, unit = max(means, default=(0.0, -1))
    if times < TIMES:
        return ""
    return (
        f"it drowns unit {unit}: it added {times:.0f} times as much; lower its weight ({run.unit.weight:g}), "
        f"or raise that of unit {unit}"
    )


def _residuals(effect: PassEffect) -> dict[int, float]:
    """By denoiser call."""
    return {moment.turn: moment.share for moment in effect.moments if moment.kind == RESIDUALS}


def percent(share: float) -> str:
    """A share for people, with a decimal where it is small."""
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"
