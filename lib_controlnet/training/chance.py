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
    """`timesteps` (B,) int64, `noise` (B, 4, h, w) normal, `dropped` (B,) bool: prompts replaced by the empty one.

    `weights` (B,): what each row counts for in the loss; over all processes they sum to theirs times `share`, the
    share of a whole batch that this one is.
    """

    timesteps: Tensor
    noise: Tensor
    dropped: Tensor
    weights: Tensor
    share: float = 1.0

    def rows(self, part: Sequence[int], weights: Tensor, share: float) -> Draw:
        rows = list(part)
        return Draw(self.timesteps[rows], self.noise[rows], self.dropped[rows], weights, share)

    def to(self, device: torch.device) -> Draw:
        timesteps, noise, dropped, weights = (
            part.to(device) for part in (self.timesteps, self.noise, self.dropped, self.weights)
        )
        return Draw(timesteps, noise, dropped, weights, self.share)


def generator_of(seed: int, *place: int) -> torch.Generator:
    """A CPU generator for one place in a training; streams of different places are independent (NumPy's
    SeedSequence)."""
    state = np.random.SeedSequence(seed, spawn_key=place).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def step_generator(seed: int, step: int, part: int) -> torch.Generator:
    """For optimizer step `step` and its pass `part` (gradient accumulation)."""
    return generator_of(seed, _STEP, step, part)


def draw(
    generator: torch.Generator,
    shape: Sequence[int],
    timesteps: int,
    empty_prompts: float,
    *,
    cubic: bool = False,
    offset_noise: float = 0.0,
) -> Draw:
    """For latents of `shape` (B, 4, h, w): uniform timesteps below `timesteps`, and `empty_prompts` of the prompts
    dropped on average.

    cubic: (1 - u^3) of all timesteps for uniform u (Mou et al., arXiv:2302.08453, section 3.4). offset_noise: strength
    of a noise with one number a channel, added to the other (Guttenberg, "Diffusion with Offset Noise", 2023).
    """
    count = shape[0]
    times = torch.randint(0, timesteps, (count,), generator=generator)
    noise = torch.randn(*shape, generator=generator)
    dropped = torch.rand(count, generator=generator) < empty_prompts
    if cubic:
        shares = 1 - torch.rand(count, generator=generator) ** 3
        times = (shares * timesteps).long().clamp(0, timesteps - 1)
    if offset_noise:
        noise = noise + offset_noise * torch.randn(*shape[:2], 1, 1, generator=generator)
    return Draw(times, noise, dropped, torch.full((count,), 1 / count))


class Order:
    """Which examples each pass sees: every one once an epoch, in a new order, batches of one group only.

    With one group all batches have the same size: the last one is filled from the start of the group's order. With
    several, a group's last batch is as small as it comes, since filling it would show the pictures of rare sizes again
    and again; its `share` of a whole batch says what it counts for.
    """

    def __init__(self, groups: Sequence[Sequence[int]], batch: int, seed: int, window: int | None = None) -> None:
        """`window`: of a stream; each has orders of its own."""
        self._groups = [list(group) for group in groups if group]
        self._batch = batch
        self._seed = seed
        self._place = (_ORDER,) if window is None else (_ORDER, window)
        self._epoch = -1
        self._batches: list[list[int]] = []
        self.batches_per_epoch = sum(-(-len(group) // batch) for group in self._groups)
        if not self.batches_per_epoch:
            raise ValueError("there is no example to train on")
        self._whole = min(batch, max(len(group) for group in self._groups)) if len(self._groups) > 1 else batch

    def indices(self, number: int) -> Tensor:
        """Examples (B,) of batch `number`, counted over all epochs."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffled(epoch)
        return torch.tensor(self._batches[place])

    def share(self, indices: Tensor) -> float:
        """Of a whole batch, in 0..1."""
        return len(indices) / self._whole

    def visited(self, first: int, last: int) -> list[int]:
        """Examples of the batches from `first` to before `last`, sorted."""
        epoch = self.batches_per_epoch
        if last - first >= epoch + epoch - 1 or (first % epoch == 0 and last - first >= epoch):
            return sorted(index for group in self._groups for index in group)
        return sorted({index for number in range(first, last) for index in self.indices(number).tolist()})

    def _shuffled(self, epoch: int) -> list[list[int]]:
        generator = generator_of(self._seed, *self._place, epoch)
        batches: list[list[int]] = []
        for group in self._groups:
            mixed = [group[index] for index in torch.randperm(len(group), generator=generator).tolist()]
            for start in range(0, len(mixed), self._batch):
                part = mixed[start : start + self._batch]
                while len(part) < self._batch and len(self._groups) == 1:
                    part += mixed[: self._batch - len(part)]
                batches.append(part)
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def rows_of(count: int, process: int, processes: int) -> tuple[list[int], list[float]]:
    """(rows of a batch of `count` that are this process's, their weights): all processes get equally many, so that they
    call their networks alike; a row that only fills up weighs nothing."""
    each = -(-count // processes)
    rows = range(process * each, (process + 1) * each)
    return [min(row, count - 1) for row in rows], [float(row < count) for row in rows]
