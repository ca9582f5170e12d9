"""Settings of a training, and the learning rate that follows from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Defaults follow Zhang et al. (arXiv:2302.05543) and the settings diffusers and lllyasviel/ControlNet share.

    `steps`: optimizer steps. `decay_from`: share of the steps after which the learning rate falls linearly to
    `final_rate` times its height (1.0: constant). `empty_prompts`: share of the contexts replaced by that of the empty
    prompt. `min_snr_gamma` and `average_decay`: None or 0 turns the feature off.
    """

    steps: int
    batch_size: int = 4
    learning_rate: float = 1e-5
    warm_up: int = 0
    decay_from: float = 1.0
    final_rate: float = 0.02
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    clip_norm: float | None = 1.0
    empty_prompts: float = 0.5
    min_snr_gamma: float | None = None
    average_decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")
        for name in ("decay_from", "final_rate", "empty_prompts"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step `step`, counted from 0."""
        return self.learning_rate * ramp(step, self.steps, self.warm_up, self.decay_from, self.final_rate)


def ramp(step: int, steps: int, warm_up: int, decay_from: float, final: float) -> float:
    """Factor in 0..1: up over `warm_up` steps, flat, then from `decay_from` (share of `steps`) down to `final`."""
    rising = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
    done = step / steps
    falling = 1.0 if done <= decay_from else (1 - done) / (1 - decay_from)
    return rising * max(final, falling)
