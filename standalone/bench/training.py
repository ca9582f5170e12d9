"""Cases about training: an iteration of ours beside fine-tuning the U-Net, and beside diffusers' ControlNet.

Memory is counted at SD1.5's true width. Times are measured at half of it, which needs 10 GB and where the trainings can
take turns, or at the true one, which needs 19 GB and where each is made, measured and let go of before the next.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence

from torch._subclasses import FakeTensorMode

from standalone.train.cost import TRUE_WIDTH, Case, case, total_bytes

from .measure import Goal, Progress, Result, Stopwatch, take_turns

GOALS = {
    "train_time_vs_finetune": Goal(1.0),
    "train_time_vs_diffusers": Goal(1.0),
    "train_memory_vs_finetune": Goal(0.75),
    "train_memory_vs_diffusers": Goal(1.0),
    "train_time_control_lora": Goal(1.1),
    "train_memory_control_lora": Goal(0.5),
    "train_time_lllite": Goal(1.0),
    "train_memory_lllite": Goal(0.45),
}
TRUE_WIDTH_GOALS = {"train_time_vs_finetune": Goal(0.95)}
"""Those that are others at the true width, where attention is a smaller part of a step than convolutions."""
_KINDS = ("control_lora", "lllite")
"""Beside fine-tuning too."""
_WIDTH = TRUE_WIDTH // 2
_GIB = 1 << 30
_OTHERS = {"finetune": "fine-tune", "diffusers": "diffusers"}


_COMPARED = {
    **{f"vs_{key}": ("ours", other) for key, other in _OTHERS.items()},
    **{kind: (kind, "fine-tune") for kind in _KINDS},
}
"""What follows `train_time_` and `train_memory_` -> which trainings' ratio it is."""


def train_costs(
    names: Collection[str], pixels: int, rounds: int, progress: Progress, true_width: bool = False
) -> list[Result]:
    """The cases of GOALS among `names`, batch 1. `true_width`: see above."""
    results: list[Result] = []
    for what, unit, measure in (
        ("time", "s", _seconds_alone if true_width else _seconds),
        ("memory", "GiB", _gibibytes),
    ):
        wanted = {f"train_{what}_{key}": pair for key, pair in _COMPARED.items() if f"train_{what}_{key}" in names}
        if not wanted:
            continue
        found = measure(sorted({one for pair in wanted.values() for one in pair}), pixels, rounds, progress)
        for name, (one, other) in wanted.items():
            detail = f"{found[one]:.3f} {unit} of {one} against {found[other]:.3f} {unit} of {other}"
            goal = TRUE_WIDTH_GOALS.get(name, GOALS[name]) if true_width else GOALS[name]
            results.append(Result(name, found[one] / found[other], goal, detail))
    return results


def _seconds(trainings: Sequence[str], pixels: int, rounds: int, progress: Progress) -> dict[str, float]:
    """Of each at half of the width; they take turns."""
    stopwatch = Stopwatch()
    made = {name: case(name, _WIDTH, 1, pixels // 8) for name in trainings}
    for one in made.values():
        _watch(stopwatch, one)
    return take_turns({name: one.step for name, one in made.items()}, rounds, progress, stopwatch)


def _seconds_alone(trainings: Sequence[str], pixels: int, rounds: int, progress: Progress) -> dict[str, float]:
    """Of each at the true width, one after another."""
    seconds: dict[str, float] = {}
    for name in trainings:
        stopwatch, made = Stopwatch(), case(name, TRUE_WIDTH, 1, pixels // 8)
        _watch(stopwatch, made)
        seconds |= take_turns({name: made.step}, rounds, progress, stopwatch)
        del made
        gc.collect()
    return seconds


def _watch(stopwatch: Stopwatch, made: Case) -> None:
    for network in made.networks:
        stopwatch.watch(network)


def _gibibytes(trainings: Sequence[str], pixels: int, _rounds: int, progress: Progress) -> dict[str, float]:
    """Counted on tensors that have sizes but no content."""
    progress("counting the bytes of trainings")
    with FakeTensorMode():
        return {name: total_bytes(case(name, TRUE_WIDTH, 1, pixels // 8)) / _GIB for name in trainings}
