"""Measuring: CPU seconds of things that take turns, and the results with their goals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Goal:
    """The range in which a value is good."""

    most: float
    least: float | None = None

    def met(self, value: float) -> bool:
        return value <= self.most and (self.least is None or value >= self.least)

    def __str__(self) -> str:
        return f"<= {self.most:g}" if self.least is None else f"{self.least:g} .. {self.most:g}"


@dataclass(frozen=True)
class Result:
    """One case's value: a ratio, or seconds where the goal says so."""

    name: str
    value: float
    goal: Goal
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.goal.met(self.value)

    def as_json(self) -> dict[str, object]:
        return {"name": self.name, "value": round(self.value, 4), "goal": str(self.goal), "ok": self.ok}


def cpu_seconds(action: Callable[[], object]) -> float:
    """CPU seconds (all threads, user and system) that `action` takes: other programs do not count."""
    started = time.process_time()
    action()
    return time.process_time() - started


def take_turns(actions: Mapping[str, Callable[[], object]], rounds: int, progress: Progress) -> dict[str, float]:
    """Least CPU seconds of each action.

    They take turns, each round beginning with another one, so that a slow minute of the machine meets all of them.
    Noise only ever adds time, so the least of the rounds is the nearest to the truth.
    """
    names = list(actions)
    for name in names:
        progress(f"warming up {name}")
        actions[name]()  # first calls allocate, encode hints, choose kernels
    best = dict.fromkeys(names, float("inf"))
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            seconds = cpu_seconds(actions[name])
            best[name] = min(best[name], seconds)
            progress(f"round {number + 1}/{rounds}: {name} {seconds:.3f} s")
    return best
