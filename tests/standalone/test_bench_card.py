"""Measuring on a graphics card, with a stand-in for what PyTorch tells of one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from standalone.bench import card
from standalone.bench.card import CardMeter, CardStopwatch, runtime_of
from standalone.bench.cli import main
from standalone.bench.measure import take_turns


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What PyTorch was asked for, in turn; the clock goes on by a second at each look."""
    said: list[str] = []
    api = SimpleNamespace(
        synchronize=lambda *_: said.append("wait"), set_sync_debug_mode=said.append, is_available=lambda: True
    )
    clock = iter(float(second) for second in range(100))
    monkeypatch.setattr(card.torch, "cuda", api)
    monkeypatch.setattr(card.time, "perf_counter", lambda: next(clock))
    return said


def test_an_action_is_timed_between_waits_and_must_not_wait(told: list[str]) -> None:
    stopwatch = CardStopwatch(torch.device("cuda"))
    assert stopwatch.stretches(lambda: told.append("work")) == [1.0]
    assert told == ["wait", "error", "work", "default", "wait"]


def test_the_first_step_may_wait(told: list[str]) -> None:
    take_turns({"step": lambda: told.append("work")}, 1, lambda _: None, CardStopwatch(torch.device("cuda")))
    assert told == ["work", "wait", "error", "work", "default", "wait"]


def test_an_error_leaves_the_card_as_it_was(told: list[str]) -> None:
    def fail() -> None:
        raise RuntimeError("called a synchronizing operation")

    with pytest.raises(RuntimeError, match="synchronizing"):
        CardStopwatch(torch.device("cuda")).stretches(fail)
    assert told[-1] == "default"


def test_bytes_are_those_above_the_beginning(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    del told
    held = SimpleNamespace(
        reset_peak_memory_stats=lambda _: None, memory_allocated=lambda _: 10, max_memory_allocated=lambda _: 25
    )
    vars(card.torch.cuda).update(vars(held))
    with CardMeter(torch.device("cuda")) as meter:
        pass
    assert meter.peak == 15


def test_runtimes(told: list[str]) -> None:
    del told
    assert (runtime_of("cpu").device.type, runtime_of("cpu").dtype) == ("cpu", torch.float32)
    assert (runtime_of("cuda:1").device, runtime_of("cuda:1").dtype) == (torch.device("cuda:1"), torch.float16)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cuda"], "no device of the kind cuda"),
        (["--device", "toaster"], "--device toaster"),
    ],
)
def test_a_card_that_is_not_there(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(card.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        main(arguments)
    assert words in capsys.readouterr().err


def test_what_is_measured_on_the_cpu_only(told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    del told
    with pytest.raises(SystemExit):
        main(["--device", "cuda", "--case", "load_vs_read", "--case", "step_one"])
    assert "on the CPU only: load_vs_read" in capsys.readouterr().err
