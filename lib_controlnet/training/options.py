"""Settings of the optimisation, and the learning rate that follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .bounds import check_bounds, check_rates, within
from .errors import TrainingError

Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["no", "bf16", "fp16"]
Optimizer = Literal["adamw", "adamw8bit", "adafactor"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Defaults follow Zhang et al. (arXiv:2302.05543) and the settings diffusers and lllyasviel/ControlNet share.

    `steps`: optimizer steps. `batch_size`: of one process and one pass; a step sees `batch_size` x `accumulation` x
    processes pictures. `schedule`: how the rate falls after `decay_from` (share of the steps) down to `final_rate`
    times its height. `empty_prompts`: share of the prompts replaced by the empty one. `min_snr_gamma`, `clip_norm`,
    `average_decay`: 0 turns the feature off. `sd_locked` False trains the U-Net's decoder too, at
    `decoder_learning_rate`. `rates`: learning rates of modules of their own by patterns of names ("zero_convs.*"), the
    first that fits. `timesteps` "cubic" visits noisy ones more often, as T2I-Adapter's authors do. `offset_noise`: of
    a noise that is the same everywhere in a channel, so that light and dark are learnt. `zero_terminal_snr`: the last
    timestep is noise alone, for velocity models. `reward`: what the difference between the condition and the map of the
    picture that is predicted counts for, at timesteps below `reward_below` (reward.py); `reward_map`: a preprocessor,
    that of the data where it is empty. `only_mid_control`: the decoder gets the middle's residual only.
    `checkpointing`: activations are computed again in the backward pass, which costs time and saves memory. `weights`
    "bf16": what is trained is kept in half of the memory and rounded stochastically. `fused_backward`: each weight
    moves as soon as its gradient is there. Both are for "adafactor". `base_weights`: how the locked U-Net is kept
    (narrow.py); "whole" is the precision of the arithmetic.
    """

    steps: int = within(1, 10**8)
    batch_size: int = within(1, 4096, 4)
    accumulation: int = within(1, 65536, 1)
    learning_rate: float = within(0, 1e9, 1e-5)
    decoder_learning_rate: float = within(0, 1e9, 2e-6)
    rates: Mapping[str, float] = field(default_factory=dict)
    optimizer: Optimizer = "adamw"
    schedule: Schedule = "constant"
    warm_up: int = within(0, 10**8, 0)
    decay_from: float = within(0, 1, 0.0)
    final_rate: float = within(0, 1, 0.0)
    betas: tuple[float, float] = within(0, 0.9999999, (0.9, 0.999))
    epsilon: float = within(0, 1, 1e-8)
    weight_decay: float = within(0, 1e6, 1e-2)
    clip_norm: float = within(0, 1e9, 1.0)
    empty_prompts: float = within(0, 1, 0.5)
    min_snr_gamma: float = within(0, 1e6, 0.0)
    timesteps: Literal["uniform", "cubic"] = "uniform"
    offset_noise: float = within(0, 1, 0.0)
    zero_terminal_snr: bool = False
    reward: float = within(0, 1e6, 0.0)
    reward_below: int = within(1, 1000, 200)
    reward_map: str = ""
    average_decay: float = within(0, 0.9999999, 0.0)
    sd_locked: bool = True
    only_mid_control: bool = False
    checkpointing: bool = False
    precision: Precision = "no"
    weights: Literal["float32", "bf16"] = "float32"
    base_weights: Literal["whole", "fp8", "nf4"] = "whole"
    fused_backward: bool = False
    seed: int = within(0, 2**63 - 1, 0)

    def __post_init__(self) -> None:
        check_bounds(self, "train")
        check_rates(self.rates)
        if len(self.betas) != 2:
            raise TrainingError("betas must be two numbers", field="train.betas", found=self.betas,
                                remedy="correct the configuration")  # fmt: skip
        if (self.weights == "bf16" or self.fused_backward) and self.optimizer != "adafactor":
            raise TrainingError('weights = "bf16" and fused_backward are for Adafactor', field="train.optimizer",
                                found=self.optimizer, remedy='use optimizer = "adafactor"')  # fmt: skip
        if self.fused_backward and (self.accumulation > 1 or self.clip_norm or self.precision == "fp16"):
            raise TrainingError("with fused_backward no gradient lives long enough to be summed, scaled or clipped",
                                field="train.fused_backward", found=f"accumulation {self.accumulation}, clip_norm "
                                f"{self.clip_norm:g}, precision {self.precision}",
                                remedy="use accumulation = 1, clip_norm = 0 and bf16")  # fmt: skip

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
