"""How whole passes with reuse are driven, and what their steps amount to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lib_controlnet.engine.effect import Computed
from standalone.bench import passes
from standalone.bench.measure import Stopwatch
from standalone.bench.passes import BARE, CASES, Kinds, latents, one_pass
from standalone.bench.steps import STEPS

COMPUTED = Computed(5, 2)


class Still:
    """A stage without networks, whose steps leave a mark for each layer that would have computed."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.stopwatch = stopwatch
        self.x, self.timesteps = torch.randn(2, 4, 8, 8), torch.zeros(2)
        self.seen: list[tuple[Any, ...]] = []

    def bare_step(self) -> None:
        self.seen.append((BARE, float(self.timesteps[0])))
        self.stopwatch._mark()


class Begun:
    """A step of a case that computes control in every fourth turn, of all rows or of one in turns."""

    def __init__(self, stage: Still, name: str) -> None:
        self.stage, self.name = stage, name
        self.turn, self.progress, self.planned, self.noisy = 0, 0.5, STEPS, False
        self.network = torch.nn.Identity()
        self.network.forward = lambda *_: None
        effects = [SimpleNamespace(computed=one) for one in (COMPUTED, Computed(4, 0), None)]
        self.session = SimpleNamespace(end=lambda steps: self.ended(steps), taken_effects=lambda: effects)

    def ended(self, steps: int) -> None:
        assert (steps, self.turn) == (STEPS, STEPS)

    def __call__(self) -> None:
        self.stage.seen.append((self.name, float(self.stage.timesteps[0]), self.turn, self.progress))
        computes = self.turn % 4 == 1
        if computes:
            self.network(None, None, None, torch.zeros(2 if self.turn % 8 == 1 else 1))
        for _ in range(2 if computes else 1):
            self.stage.stopwatch._mark()


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterator[float]], None]:
    """Sets what the clock says from mark to mark."""

    def set_(times: Iterator[float]) -> None:
        monkeypatch.setattr("standalone.bench.measure.time.process_time", lambda: next(times))

    return set_


def test_every_step_of_a_pass_meets_the_bare_step_on_its_own_latents(
    monkeypatch: pytest.MonkeyPatch, ticking: Callable[[Iterator[float]], None]
) -> None:
    ticking(iter(range(10_000)))
    stopwatch, kinds = Stopwatch(), Kinds()
    stage: Any = Still(stopwatch)
    names = {case: name for name, case in CASES.items()}
    monkeypatch.setattr(passes, "_begun", lambda stage, units, noisy: Begun(stage, names[units, noisy]))
    assert one_pass(stage, CASES, stopwatch, kinds, lambda _: None) == dict.fromkeys(CASES, COMPUTED)
    times = [float(951 - 50 * turn) for turn in range(STEPS)]
    assert [time for name, time in (one[:2] for one in stage.seen) if name == BARE] == times
    for name in CASES:
        own = [one[1:] for one in stage.seen if one[0] == name]
        assert own == [(time, turn, (turn - 1) / STEPS) for turn, time in enumerate(times, 1)]
    assert {stage.seen[place][0] for place in range(0, len(stage.seen), len(CASES) + 1)} == {BARE, *CASES}  # who begins
    for name in CASES:  # a second a stretch: 5 steps of three, 15 of two
        assert [kinds.counts[name, rows, stretches] for rows, stretches in ((2, 3), (1, 3), (0, 2))] == [3, 2, 15]
        assert kinds.mean(name) == (5 * 3 + 15 * 2) / 20


def test_steps_of_one_kind_count_as_in_their_shortest_stretches() -> None:
    kinds = Kinds()
    for rows, stretches in ((0, [3.0, 1.0]), (0, [1.0, 2.0]), (2, [5.0, 5.0, 5.0])):
        kinds.add("one", stretches, rows)
    kinds.add("other", [9.0])
    assert kinds.mean("one") == pytest.approx((2 * (1.0 + 1.0) + 15.0) / 3)
    assert kinds.mean("other") == 9.0


def test_latents_go_from_noise_to_a_picture() -> None:
    """SD's own schedule: at timestep 951 next to nothing is seen of the picture, at 1 next to nothing of the noise."""
    stage: Any = SimpleNamespace(x=torch.randn(2, 4, 8, 8), timesteps=torch.zeros(2))
    noise = stage.x.clone()
    way = list(latents(stage))
    assert len(way) == STEPS
    first, last = way[0][0], way[-1][0]
    assert torch.nn.functional.cosine_similarity(first.flatten(), noise.flatten(), dim=0) > 0.99
    assert abs(float(torch.nn.functional.cosine_similarity(last.flatten(), noise.flatten(), dim=0))) < 0.3
