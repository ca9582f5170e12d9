"""What a control needs at every step, brought to where the step computes once and not step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import prod

import torch
from torch import Tensor

from .step import Step

_CALLS_AHEAD = 64
"""Where nobody told how many there will be."""
_BYTES_AHEAD = 64 << 20


class Placed:
    """A tensor and its copies on the devices and in the types in which it was wanted."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def on(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The tensor there and in that type."""
        key = (device, dtype)
        if key not in self._copies:
            self._copies[key] = self._tensor.to(device, dtype)
        return self._copies[key]

    def like(self, other: Tensor) -> Tensor:
        """The tensor where `other` is and in its type."""
        return self.on(other.device, other.dtype)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Noise that waits for its call. state: the generator's before it was drawn."""

    noise: Tensor
    state: Tensor


class NoiseAhead:
    """Noise of the processor's generator, the same on every device, for one U-Net call after the other.

    For another device the noise of the calls to come is drawn ahead and copied in one go, so that a step need not wait
    for it. Calls are expected to be as the ones of this denoiser step were; where one differs, what was drawn for those
    after it is drawn again, so that the numbers are always those that would have been drawn call by call.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._ahead: deque[_Drawn] = deque()
        self._shapes: list[tuple[int, ...]] = []
        """Of the calls of the denoiser step under way."""
        self._progress = -1.0

    def next(self, shape: Sequence[int], step: Step) -> Tensor:
        """(B, C, h, w) of `shape`, where `step.x` is and in its type."""
        wanted = tuple(shape)
        if step.x.device.type == "cpu":
            return torch.randn(wanted, generator=self._generator).to(step.x)
        if step.progress != self._progress:
            self._progress, self._shapes = step.progress, []
        self._shapes.append(wanted)
        if self._ahead and not _fits(self._ahead[0].noise, wanted, step.x):
            self._generator.set_state(self._ahead[0].state)
            self._ahead.clear()
        if not self._ahead:
            self._draw(wanted, step)
        return self._ahead.popleft().noise

    def _draw(self, shape: tuple[int, ...], step: Step) -> None:
        """Draws for this call and, as if the denoiser step ended with it, for those of the steps to come."""
        left = max(round(step.planned * (1.0 - step.progress)), 1)
        calls = left * len(self._shapes) if step.planned else _CALLS_AHEAD
        shapes = _within([shape, *islice(cycle(self._shapes), calls - 1)], step.x.element_size())
        states: list[Tensor] = []
        drawn: list[Tensor] = []
        for each in shapes:
            states.append(self._generator.get_state())
            drawn.append(torch.randn(each, generator=self._generator).flatten().to(step.x.dtype))
        sent = _sent(torch.cat(drawn), step.x.device)
        parts = torch.split(sent, [prod(each) for each in shapes])
        self._ahead.extend(
            _Drawn(part.reshape(each), state) for part, each, state in zip(parts, shapes, states, strict=True)
        )


def _fits(noise: Tensor, shape: tuple[int, ...], like: Tensor) -> bool:
    return tuple(noise.shape) == shape and noise.device == like.device and noise.dtype == like.dtype


def _within(shapes: Iterable[tuple[int, ...]], element: int) -> list[tuple[int, ...]]:
    """The first shapes, one at least, whose noise is no larger than may lie on a device."""
    kept: list[tuple[int, ...]] = []
    size = 0
    for shape in shapes:
        size += prod(shape) * element
        if kept and size > _BYTES_AHEAD:
            break
        kept.append(shape)
    return kept


def _sent(noise: Tensor, device: torch.device) -> Tensor:
    """`noise` on `device`, from memory that a CUDA device reads by itself."""
    if device.type == "cuda" and torch.cuda.is_available():
        return noise.pin_memory().to(device, non_blocking=True)
    return noise.to(device)
