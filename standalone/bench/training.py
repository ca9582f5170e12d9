"""Cases about training: an iteration of ours beside fine-tuning the U-Net, and beside diffusers' ControlNet."""

from __future__ import annotations

from collections.abc import Collection

from torch._subclasses import FakeTensorMode

from standalone.train.cost import TRUE_WIDTH, cases, kind_cases, total_bytes

from .measure import Goal, Progress, Result, Stopwatch, take_turns

GOALS = {
    "train_time_vs_finetune": Goal(1.0),
    "train_time_vs_diffusers": Goal(1.0),
    "train_memory_vs_finetune": Goal(0.82),
    "train_memory_vs_diffusers": Goal(1.0),
    "train_time_control_lora": Goal(1.1),
    "train_memory_control_lora": Goal(0.5),
    "train_time_lllite": Goal(1.0),
    "train_memory_lllite": Goal(0.45),
}
_KINDS = ("control_lora", "lllite")
"""Beside fine-tuning too."""
_WIDTH = TRUE_WIDTH // 2
_GIB = 1 << 30
_OTHERS = {"finetune": "fine-tune", "diffusers": "diffusers"}


def train_costs(names: Collection[str], pixels: int, rounds: int, progress: Progress) -> list[Result]:
    """The cases of GOALS among `names`, batch 1: times at half of SD1.5's width, memory at its true one."""
    results: list[Result] = []
    for what, unit, measure in (("time", "s", _seconds), ("memory", "GiB", _gibibytes)):
        wanted = {f"train_{what}_vs_{key}": other for key, other in _OTHERS.items()}
        if not {*wanted, *(f"train_{what}_{kind}" for kind in _KINDS)} & set(names):
            continue
        found = measure(pixels, rounds, progress)
        for name, other in wanted.items():
            detail = f"{found['ours']:.3f} {unit} against {found[other]:.3f} {unit}"
            results.append(Result(name, found["ours"] / found[other], GOALS[name], detail))
        for kind in _KINDS:
            detail = f"{found[kind]:.3f} {unit} against {found['fine-tune']:.3f} {unit} of fine-tuning"
            name = f"train_{what}_{kind}"
            results.append(Result(name, found[kind] / found["fine-tune"], GOALS[name], detail))
    return [result for result in results if result.name in names]


def _seconds(pixels: int, rounds: int, progress: Progress) -> dict[str, float]:
    stopwatch = Stopwatch()
    variants = cases(_WIDTH, 1, pixels // 8) | kind_cases(_WIDTH, 1, pixels // 8, _KINDS)
    for case in variants.values():
        for network in case.networks:
            stopwatch.watch(network)
    steps = {name: case.step for name, case in variants.items()}
    return take_turns(steps, rounds, progress, stopwatch)


def _gibibytes(pixels: int, _rounds: int, progress: Progress) -> dict[str, float]:
    """Counted on tensors that have sizes but no content."""
    progress("counting the bytes of trainings")
    with FakeTensorMode():
        variants = cases(TRUE_WIDTH, 1, pixels // 8) | kind_cases(TRUE_WIDTH, 1, pixels // 8, _KINDS)
        return {name: total_bytes(case) / _GIB for name, case in variants.items()}
