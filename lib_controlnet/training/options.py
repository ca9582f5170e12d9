"""Settings of the optimisation, and the learning rate that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .errors import TrainingError

Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["no", "bf16", "fp16"]
Optimizer = Literal["adamw", "adamw8bit"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Defaults follow Zhang et al. (arXiv:2302.05543) and the settings diffusers and lllyasviel/ControlNet share.

    `steps`: optimizer steps. `batch_size`: of one process and one pass; a step sees `batch_size` x `accumulation` x
    processes pictures. `schedule`: how the rate falls after `decay_from` (share of the steps) down to `final_rate`
    times its height. `empty_prompts`: share of the prompts replaced by the empty one. `min_snr_gamma`, `clip_norm`,
    `average_decay`: 0 turns the feature off. `sd_locked` False trains the U-Net's decoder too, at
    `decoder_learning_rate`. `only_mid_control`: the decoder gets the middle's residual only. `checkpointing`:
    activations are computed again in the backward pass, which costs time and saves memory.
    """

    steps: int
    batch_size: int = 4
    accumulation: int = 1
    learning_rate: float = 1e-5
    decoder_learning_rate: float = 2e-6
    optimizer: Optimizer = "adamw"
    schedule: Schedule = "constant"
    warm_up: int = 0
    decay_from: float = 0.0
    final_rate: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    empty_prompts: float = 0.5
    min_snr_gamma: float = 0.0
    average_decay: float = 0.0
    sd_locked: bool = True
    only_mid_control: bool = False
    checkpointing: bool = False
    precision: Precision = "no"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise _wrong(name, getattr(self, name), "at least 1")
        for name in ("decay_from", "final_rate", "empty_prompts"):
            if not 0 <= getattr(self, name) <= 1:
                raise _wrong(name, getattr(self, name), "between 0 and 1")
        for name in ("warm_up", "min_snr_gamma", "clip_norm", "weight_decay", "learning_rate", "seed"):
            if getattr(self, name) < 0:
                raise _wrong(name, getattr(self, name), "0 or more")
        if not 0 <= self.average_decay < 1:
            raise _wrong("average_decay", self.average_decay, "0 or more and below 1")

    def factor(self, step: int) -> float:
        """Share of the learning rates in optimizer step `step`, counted from 0."""
        rising = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        done = step / self.steps
        if self.schedule == "constant" or done <= self.decay_from:
            return rising
        left = (1 - done) / (1 - self.decay_from)
        if self.schedule == "cosine":
            return rising * (self.final_rate + (1 - self.final_rate) * (1 - math.cos(math.pi * left)) / 2)
        return rising * max(self.final_rate, left)

    def rate(self, step: int) -> float:
        """Learning rate of the ControlNet in optimizer step `step`, counted from 0."""
        return self.learning_rate * self.factor(step)


def _wrong(name: str, found: float, wanted: str) -> TrainingError:
    return TrainingError(
        f"{name} must be {wanted}", field=f"train.{name}", found=found, remedy="correct the configuration"
    )
