"""How the benchmarks measure time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from standalone.bench import cli, duration, measure, steps, training
from standalone.bench.measure import Stopwatch, take_turns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the CPU time that passes at a call."""
    now = [0.0]

    def pass_(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(measure.time, "process_time", lambda: now[0])
    return pass_


class Layer(nn.Module):
    """Takes a second, or what the noise makes of it."""

    def __init__(self, clock: Callable[[float], None], seconds: Iterator[float]) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.clock(next(self.seconds))
        return x


def test_each_stretch_counts_as_in_its_best_round(clock: Callable[[float], None]) -> None:
    warm_up = 100.0
    first, second = Layer(clock, iter([warm_up, 1.0, 5.0])), Layer(clock, iter([warm_up, 4.0, 2.0]))
    network = nn.Sequential(first, nn.Sequential(second))
    stopwatch = Stopwatch()
    stopwatch.watch(network)

    def action() -> None:
        network(torch.zeros(1))
        clock(0.5)

    assert take_turns({"step": action}, 2, lambda _: None, stopwatch) == {"step": 1.0 + 2.0 + 0.5}


def test_without_networks_an_action_is_one_stretch(clock: Callable[[float], None]) -> None:
    seconds = iter([9.0, 3.0, 2.0])
    assert take_turns({"load": lambda: clock(next(seconds))}, 2, lambda _: None) == {"load": 2.0}


def test_each_action_meets_the_others_in_both_orders(clock: Callable[[float], None]) -> None:
    order: list[str] = []
    take_turns({name: lambda name=name: order.append(name) for name in "abc"}, 4, lambda _: None)
    assert "".join(order[3:]) == "abc" + "acb" + "cab" + "cba"


def test_gradients_of_layers_are_stretches_of_their_own() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    stopwatch = Stopwatch()
    stopwatch.watch(network)
    assert len(stopwatch.stretches(lambda: network(torch.ones(1, 2)).sum().backward())) == 2 + 2 + 1


def test_a_run_says_how_long_it_will_take_and_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice the rounds of arithmetic take about twice as long, a case of seconds as long as it says."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(duration, "_speed", lambda: 0.1)  # 10^12 operations a second
    assert duration.expected_seconds(["step_installed_only"], 512, 4) == pytest.approx(5 * (1.607 + 1.607 * 1.02) / 0.1)
    assert duration.expected_seconds(["step_two"], 256, 1) == pytest.approx(2 * (1.607 + 1.607 * 1.7) / 0.4)
    assert [duration.in_words(seconds) for seconds in (40.2, 600)] == ["about 40 seconds", "about 10 minutes"]
    monkeypatch.setattr(cli, "_measure", interrupted)
    assert cli.main(["--case", "step_one", "--quick"]) == 130
    said = capsys.readouterr().err
    assert "cases: 1, about" in said
    assert "interrupted" in said


def test_a_case_with_reuse_takes_from_jobs_how_often_they_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: a fifth of the steps take 1.4 of a bare one, a tenth 1.2, the others 1.02."""
    asked: list[object] = []

    @contextmanager
    def running(pairs: int) -> Iterator[SimpleNamespace]:
        assert pairs == steps.PAIRS
        yield SimpleNamespace(counts=lambda case: asked.append(case) or (6.0, 2.0, 20.0))

    monkeypatch.setattr(steps.reuse, "running", running)
    shares = steps._computed(["step_one", "step_reuse_two"], lambda _: None)
    assert asked == [steps.reuse.CASES["canny and seg"]]
    name = "step_reuse_two"
    seconds = {steps.BARE: 2.0, name: 2.8, name + steps.HALVED: 2.4, name + steps.SERVED: 2.04}
    assert steps._result(name, seconds, shares).value == pytest.approx(0.2 * 1.4 + 0.1 * 1.2 + 0.7 * 1.02)


def test_what_makes_an_action_ready_is_not_measured(clock: Callable[[float], None]) -> None:
    order: list[str] = []
    seconds = take_turns(
        {"a": lambda: (order.append("a"), clock(2.0))[1], "b": lambda: clock(1.0)},
        2,
        lambda _: None,
        ready={"a": lambda: (order.append("ready"), clock(50.0))[1]},
    )
    assert seconds == {"a": 2.0, "b": 1.0}
    assert order == ["ready", "a"] * 3


@pytest.mark.parametrize(
    ("kind", "expected"), [(steps.WHOLE, [2, 2, 2]), (steps.HALF, [1, 1, 1]), (steps.NONE, [0, 0, 0])]
)
def test_steps_with_reuse_are_of_one_kind(kind: str, expected: list[int]) -> None:
    """As the engine decides it: two whole ones, then a half and a whole one by turns, STEPS / 5 calls apart or more."""
    step = SimpleNamespace(turn=0, planned=0, rows=0, last=0, count=0)

    def made() -> int:
        computes = step.count < 2 or step.turn - step.last >= -(-step.planned // 5)
        rows = (2 if step.count < 2 or step.count % 2 else 1) if computes else 0
        step.count, step.last = (step.count + 1, step.turn) if computes else (step.count, step.last)
        return rows

    class Made(SimpleNamespace):
        def __call__(self) -> int:
            step.turn, step.planned = self.turn, self.planned
            return made()

    reusing = steps.Reusing(Made(turn=0, planned=0), kind)  # type: ignore[arg-type]
    rows: list[object] = []
    for _ in range(3):
        reusing.ready()
        rows.append(reusing())
    assert rows == expected


def test_trainings_at_the_true_width_are_in_memory_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[str] = []

    class Made:
        def __init__(self, name: str) -> None:
            assert not alive, "another one is still there"
            alive.append(name)
            self.networks, self.name = [nn.Identity()], name

        def step(self) -> None:
            pass

        def __del__(self) -> None:
            alive.remove(self.name)

    widths: list[int] = []
    monkeypatch.setattr(training, "case", lambda name, width, *_: (widths.append(width), Made(name))[1])
    monkeypatch.setattr(
        training, "take_turns", lambda steps, *_: {name: {"ours": 9.0, "fine-tune": 10.0}[name] for name in steps}
    )
    (result,) = training.train_costs(["train_time_vs_finetune"], 512, 1, lambda _: None, True)
    assert (result.value, result.goal.most, set(widths)) == (0.9, 0.95, {320})
    assert training.train_costs(["load_vs_read"], 512, 1, lambda _: None, True) == []
