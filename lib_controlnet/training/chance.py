"""All chance in a training: which pictures a step sees, its timesteps, its noise, its dropped prompts.

Nothing is drawn from a running generator. Each number follows from the seed and the step alone, so a resumed training
goes on to the bit without a saved generator, and several processes take their rows of one and the same draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_ORDER, _STEP = 0, 1


@dataclass(frozen=True, eq=False)
class Draw:
    """`timesteps` (B,) int64, `noise` (B, 4, h, w) normal, `dropped` (B,) bool: prompts replaced by the empty one."""

    timesteps: Tensor
    noise: Tensor
    dropped: Tensor

    def rows(self, part: slice) -> Draw:
        return Draw(self.timesteps[part], self.noise[part], self.dropped[part])

    def to(self, device: torch.device) -> Draw:
        return Draw(self.timesteps.to(device), self.noise.to(device), self.dropped.to(device))


def generator_of(seed: int, *place: int) -> torch.Generator:
    """A CPU generator for one place in a training; streams of different places are independent (NumPy's
    SeedSequence)."""
    state = np.random.SeedSequence(seed, spawn_key=place).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def step_generator(seed: int, step: int, part: int) -> torch.Generator:
    """For optimizer step `step` and its pass `part` (gradient accumulation)."""
    return generator_of(seed, _STEP, step, part)


def draw(generator: torch.Generator, shape: Sequence[int], timesteps: int, empty_prompts: float) -> Draw:
    """For latents of `shape` (B, 4, h, w): uniform timesteps below `timesteps`, and `empty_prompts` of the prompts
    dropped on average."""
    count = shape[0]
    return Draw(
        torch.randint(0, timesteps, (count,), generator=generator),
        torch.randn(*shape, generator=generator),
        torch.rand(count, generator=generator) < empty_prompts,
    )


class Order:
    """Which examples each pass sees: every one once an epoch, in a new order, batches of one group only.

    The last batch of a group is filled from the start of the group's order, so all batches have the same size.
    """

    def __init__(self, groups: Sequence[Sequence[int]], batch: int, seed: int) -> None:
        self._groups = [list(group) for group in groups if group]
        self._batch = batch
        self._seed = seed
        self._epoch = -1
        self._batches: list[list[int]] = []
        self.batches_per_epoch = sum(-(-len(group) // batch) for group in self._groups)
        if not self.batches_per_epoch:
            raise ValueError("there is no example to train on")

    def indices(self, number: int) -> Tensor:
        """Examples (B,) of batch `number`, counted over all epochs."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffled(epoch)
        return torch.tensor(self._batches[place])

    def _shuffled(self, epoch: int) -> list[list[int]]:
        generator = generator_of(self._seed, _ORDER, epoch)
        batches: list[list[int]] = []
        for group in self._groups:
            mixed = [group[index] for index in torch.randperm(len(group), generator=generator).tolist()]
            for start in range(0, len(mixed), self._batch):
                part = mixed[start : start + self._batch]
                while len(part) < self._batch:
                    part += mixed[: self._batch - len(part)]
                batches.append(part)
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]
