"""How long a training runs: so many minutes of a machine, or so many steps, which can be repeated anywhere."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field


@dataclass
class Budget:
    minutes: float
    steps: int | None
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, options: argparse.Namespace) -> Budget:
        return cls(options.minutes, options.steps)

    @staticmethod
    def add_options(parser: argparse.ArgumentParser, minutes: float) -> None:
        parser.add_argument("--minutes", type=float, default=minutes)
        parser.add_argument("--steps", type=int, help="instead of minutes; the schedule is then the same anywhere")

    @property
    def seconds(self) -> int:
        return round(time.monotonic() - self.started)

    def share(self, step: int) -> float:
        """Share of the training that is done before step `step`, from 0; at 1 it is over."""
        return step / self.steps if self.steps else (time.monotonic() - self.started) / (60 * self.minutes)
