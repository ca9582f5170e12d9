"""How strongly each unit of a job acted, as it is told with the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...engine.effect import PassEffect
from ...engine.effect_told import percent
from ...engine.metering import DECIMALS

_MOST = 64
"""Passes of a unit whose steps are told; those of more are in the means."""


def effect_report(effects: Sequence[PassEffect]) -> dict[str, Any]:
    """Of one unit, as JSON: the mean over the steps in which it acted, the peak, and each pass's steps."""
    moments = [moment.share for effect in effects for moment in effect.moments]
    return {
        "mean": round(sum(moments) / len(moments), DECIMALS),
        "peak": round(max(moments), DECIMALS),
        "passes": [
            {
                "pass": effect.pass_.name,
                "steps": [round(share, DECIMALS) for share in effect.steps],
                **_computed(effect),
            }
            for effect in effects[:_MOST]
        ],
    }


def _computed(effect: PassEffect) -> dict[str, int]:
    """With reuse control."""
    made = effect.computed
    return {} if made is None else {"computed": made.calls, "halved": made.halved}


def with_effects(
    report: Iterable[dict[str, Any]], effects: Sequence[PassEffect], units: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The report of a job's meter with what each unit did; of those that were not measured, `units` has the names."""
    by_unit: dict[int, list[PassEffect]] = {}
    for effect in effects:
        by_unit.setdefault(effect.unit, []).append(effect)
    rows = {row["unit"]: dict(row) for row in [*units, *report]}
    for unit, row in rows.items():
        if unit in by_unit:
            row["effect"] = effect_report(by_unit[unit])
    return [row for row in rows.values() if "effect" in row or "adherence" in row]


def effect_words(report: dict[str, Any]) -> str:
    """For the line of a unit under the pictures."""
    effect = report.get("effect")
    if effect is None:
        return ""
    steps = [share for one in effect["passes"][:1] for share in one["steps"]]
    acting = [share for share in steps if share]
    first, last = (percent(acting[place]) for place in (0, -1)) if acting else ("", "")
    course = f", {first} at first and {last} at last" if len(acting) > 1 and first != last else ""
    reused = [
        f", computed in {one['computed']} of {sum(map(bool, one['steps']))} calls{_halved(one['halved'])}"
        for one in effect["passes"][:1]
        if "computed" in one
    ]
    return f"it added {percent(effect['mean'])} of what was there{course}{''.join(reused)}"


def _halved(calls: int) -> str:
    return f" ({calls} of them without the negative prompt)" if calls else ""
