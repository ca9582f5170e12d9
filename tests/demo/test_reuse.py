"""Reuse control in whole jobs of the demo: how often they compute, and what it costs in adherence."""

from __future__ import annotations

import numpy as np

from standalone.demo.data import HELD_OUT_SEED
from standalone.demo.reuse import CASES, Jobs, running
from standalone.demo.shapes import pictures

ONE_NET = 0.334
"""Of a step's arithmetic, that of a ControlNet of SD1.5: see `launch.py bench --help`."""


def test_a_step_costs_a_tenth_more_at_most_and_the_map_is_followed_as_well() -> None:
    """Two of the pairs of docs/reuse.md, where 24 and more keep 99 % and above."""
    with running(pairs=2) as jobs:
        found = jobs.figures(CASES["canny, DPM++ 2M Karras"])
    assert found.calls == 20
    assert 4 <= found.computed - found.halved / 2 <= 0.1 / ONE_NET * found.calls
    assert found.full > 0.8
    assert found.kept >= 0.98


def test_pairs_from_a_number_on_are_those_of_the_row() -> None:
    """Their pictures are those behind the ones left out, and each has the very map that it has in a whole run."""
    whole, fresh = Jobs(None, pairs=5), Jobs(None, pairs=2, first=3)
    for found, wanted in zip(fresh.truth, pictures(5, HELD_OUT_SEED)[3:], strict=True):
        assert found.prompt == wanted.prompt
        assert np.array_equal(found.image, wanted.image)
    assert not np.array_equal(fresh.truth[0].image, whole.truth[0].image)
    for kind in ("canny", "scribble", "seg"):
        for found, wanted in zip(fresh._maps[kind], whole._maps[kind][3:], strict=True):
            assert np.array_equal(found, wanted), kind
