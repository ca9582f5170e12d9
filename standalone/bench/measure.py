"""Measuring: CPU seconds of things that take turns, and the results with their goals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

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
    counts: Mapping[str, float] = field(default_factory=dict[str, float])
    """What else was counted, by name."""

    @property
    def ok(self) -> bool:
        return self.goal.met(self.value)

    def as_json(self) -> dict[str, object]:
        told = {"name": self.name, "value": round(self.value, 4), "goal": str(self.goal), "ok": self.ok}
        return {**told, **self.counts}


class Stopwatch:
    """CPU seconds (all threads, user and system; other programs do not count) of an action, stretch by stretch.

    The layers of watched networks end a stretch each, on the way back of a training too: an action's stretches are all
    of its time, each once.
    """

    def __init__(self) -> None:
        self._marks: list[float] = []

    def watch(self, network: nn.Module) -> None:
        """End a stretch whenever a layer of `network` has computed, or is about to compute its gradients."""
        for module in network.modules():
            if not any(module.children()):
                module.register_forward_hook(self._computed)

    def stretches(self, action: Callable[[], object]) -> list[float]:
        """Run `action`."""
        self._marks = []
        self._mark()
        action()
        self._mark()
        return [end - start for start, end in pairwise(self._marks)]

    def _computed(self, _layer: nn.Module, _inputs: object, output: Any) -> None:
        self._mark()
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(self._mark)

    def _mark(self, *_: object) -> None:
        self._marks.append(time.process_time())


def take_turns(
    actions: Mapping[str, Callable[[], object]],
    rounds: int,
    progress: Progress,
    stopwatch: Stopwatch | None = None,
    ready: Mapping[str, Callable[[], object]] = {},
) -> dict[str, float]:
    """CPU seconds of each action: the sum of its stretches, each as short as in the round in which it was shortest.

    Noise only ever adds time. No action of several seconds is spared it from beginning to end, but a stretch of it
    is in one round or another: five whole steps of the same network differ by a fifth on a machine that others use,
    sums of two fives by a hundredth. The actions take turns, each round beginning with another one and every other
    round backwards, so that a slow minute and what an action leaves behind (memory, caches) meet all of them. `ready`:
    what is to be done before the action of a name each time, and is not measured.
    """
    stopwatch = stopwatch or Stopwatch()
    names = list(actions)
    for name in names:
        progress(f"warming up {name}")
        ready.get(name, _nothing)()
        actions[name]()  # first calls allocate, encode hints, choose kernels
    best: dict[str, list[float]] = {}
    for number in range(rounds):
        shift = number % len(names)
        for name in (names[shift:] + names[:shift])[:: -1 if number % 2 else 1]:
            ready.get(name, _nothing)()
            stretches = stopwatch.stretches(actions[name])
            best[name] = [min(pair) for pair in zip(best.get(name, stretches), stretches, strict=True)]
            progress(f"round {number + 1}/{rounds}: {name} {sum(stretches):.3f} s, least {sum(best[name]):.3f} s")
    return {name: sum(stretches) for name, stretches in best.items()}


def _nothing() -> None:
    """An action that is ready as it is."""
