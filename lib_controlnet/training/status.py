"""Where a training is, for pages and APIs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["idle", "running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Status:
    """What a page shows. `losses`, `curve`: (step, value), thinned out. `error`: the sentence that ended it.
    `mismatched`: adherence of samples drawn with other pictures' maps.
    `captions`: (written, all) where the interrogator writes them before the training."""

    state: State
    folder: str = ""
    name: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    rate: float | None = None
    steps_per_second: float | None = None
    seconds_left: float | None = None
    adherence: float | None = None
    mismatched: float | None = None
    convergence: int | None = None
    losses: tuple[tuple[int, float], ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    grid: str = ""
    model: str = ""
    error: str = ""
    captions: tuple[int, int] | None = None
