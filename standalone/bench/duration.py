"""About how long a run of the benchmarks will take on this machine, said before it begins."""

from __future__ import annotations

import time
from collections.abc import Collection

import torch
from torch.nn import functional

from . import steps, training

_BARE, _FORWARD = 1.607, 0.567
"""10^12 operations of SD1.5's U-Net and of a ControlNet at 512x512 with two rows."""
_TRAINING = 2.5
"""Of the three variants of an iteration at half of SD1.5's width."""
_SECONDS = {"start_cpu_seconds": 20.0, "load_vs_read": 5.0, "device_events": 60.0, "memory_added": 40.0}
_JOBS = 10.0
"""Of the demo's that tell how often a case with reuse computes."""
_OTHER = 8.0
"""Seconds of a round of a case that is none of these: preprocessors."""


def expected_seconds(names: Collection[str], pixels: int, rounds: int, true_width: bool = False) -> float:
    """A rough number: of arithmetic at the speed of a convolution measured now, of the rest as elsewhere."""
    scale = (pixels / 512) ** 2
    work = scale * (rounds + 1) * _work(names, 4.0 if true_width else 1.0) / _speed()
    rest = [name for name in names if name not in steps.GOALS and name not in training.GOALS]
    rest = [name for name in rest if name != "control_forward_vs_diffusers"]
    fixed = _JOBS * len(set(names) & set(steps.REUSED))
    fixed += sum(_SECONDS.get(name, _OTHER * rounds) for name in rest)
    return work + fixed


def _work(names: Collection[str], wider: float) -> float:
    """10^12 operations of one round. `wider`: of trainings, so many times those at half of the width."""
    chosen = set(names) & set(steps.GOALS)
    work = sum(_BARE * min(steps.GOALS[name].most, 2.0) for name in chosen) + (_BARE if chosen else 0.0)
    work += 2 * _FORWARD if "control_forward_vs_diffusers" in names else 0.0
    return work + (wider * _TRAINING if set(names) & set(training.GOALS) else 0.0)


def _speed() -> float:
    """10^12 operations a second of a convolution as in the middle of SD1.5."""
    x, weight = torch.randn(2, 640, 32, 32), torch.randn(640, 640, 3, 3)
    functional.conv2d(x, weight, padding=1)
    began = time.perf_counter()
    for _ in range(3):
        functional.conv2d(x, weight, padding=1)
    return 3 * 2 * 2 * 32 * 32 * 640 * 640 * 9 / 1e12 / (time.perf_counter() - began)


def in_words(seconds: float) -> str:
    """`about 40 seconds`, `about 12 minutes`."""
    return f"about {max(seconds, 1):.0f} seconds" if seconds < 90 else f"about {seconds / 60:.0f} minutes"
