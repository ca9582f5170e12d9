"""Reuse control in whole jobs of the demo: how often they compute, and what it costs in adherence."""

from __future__ import annotations

from standalone.demo.reuse import CASES, running

ONE_NET = 0.334
"""Of a step's arithmetic, that of a ControlNet of SD1.5: see `launch.py bench --help`."""


def test_a_step_costs_a_tenth_more_at_most_and_the_map_is_followed_as_well() -> None:
    """Two of the pairs of docs/reuse.md, where 24 and more keep 99 % and above."""
    with running(pairs=2) as jobs:
        found = jobs.figures(CASES["canny, DPM++ 2M Karras"])
    assert found.calls == 20
    assert 4 <= found.computed <= 0.1 / ONE_NET * found.calls
    assert found.full > 0.8
    assert found.kept >= 0.98
