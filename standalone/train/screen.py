"""What `launch.py train` shows while it runs: progress bars on stderr, a line for each look."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

import psutil
import torch
from tqdm import tqdm

from lib_controlnet.training.adherence import Convergence
from lib_controlnet.training.check import DataReport
from lib_controlnet.training.looks import Look
from lib_controlnet.training.trainer import Progress

_AVERAGED = 0.98


class Screen:
    """A watcher with tqdm; Ctrl-C and SIGTERM end the training after the step, with its state saved."""

    def __init__(self, hidden: bool = False) -> None:
        self._hidden = hidden
        self._bar: Any = None
        self._stage: Any = None
        self._stopping = False
        self._loss: float | None = None
        self.listen()

    def listen(self) -> None:
        """For Ctrl-C and SIGTERM; again after whoever took them away, as Ray does."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def stage(self, what: str, done: int, total: int) -> None:
        if self._stage is None:
            self._stage = self._new_bar(total, what)
        self._stage.update(done - self._stage.n)
        if done >= total:
            self._stage.close()
            self._stage = None

    def data(self, report: DataReport) -> None:
        sizes = ", ".join(f"{count} of {width}x{height}" for (width, height), count in sorted(report.sizes.items()))
        self._say(f"{report.pairs} pairs, {report.held_out} held out, {report.captions} captions; {sizes}")
        for warning in report.warnings:
            self._say(f"warning: {warning}")

    def say(self, sentence: str) -> None:
        self._say(sentence)

    def begin(self, step: int, steps: int) -> None:
        self._bar = self._new_bar(steps, "training")
        self._bar.update(step)
        self._bar.unpause()

    def step(self, progress: Progress) -> None:
        self._loss = progress.loss if self._loss is None else _AVERAGED * self._loss + (1 - _AVERAGED) * progress.loss
        shown = {"loss": f"{self._loss:.5f}", "lr": f"{progress.rate:.2e}", "memory": f"{memory() / 2**30:.2f}G"}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(1)

    def look(self, look: Look, convergence: Convergence | None) -> None:
        self._say(
            f"step {look.step}: adherence {look.adherence:.3f} with its own map, {look.mismatched:.3f} with another's: "
            f"{look.point.control:+.3f}, {look.grid}"
        )
        if convergence is not None:
            self._say(
                f"sudden convergence: between steps {convergence.after} and {convergence.step} what the map brings "
                f"rose by {convergence.rise:.3f} to {convergence.value:.3f}, and stayed"
            )

    def stopping(self) -> bool:
        return self._stopping

    def close(self) -> None:
        for bar in (self._stage, self._bar):
            if bar is not None:
                bar.close()

    def _new_bar(self, total: int, what: str) -> Any:
        return tqdm(total=total, desc=what, file=sys.stderr, dynamic_ncols=True, disable=self._hidden, mininterval=1.0)

    def _say(self, text: str) -> None:
        if not self._hidden:
            tqdm.write(text, file=sys.stderr)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True


def memory() -> int:
    """Bytes: the most used of the GPU so far where there is one, else what the process holds now."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return psutil.Process().memory_info().rss
