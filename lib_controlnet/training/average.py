"""Exponential moving average of trained weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """The average lags little at first: its decay grows as (1 + n) / (10 + n) up to `decay`."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = decay
        self._updates = 0
        self.values: list[Tensor] = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for value, parameter in zip(self.values, self._parameters, strict=True):
            value.lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the averaged weights inside the block and its own ones again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on to the bit."""
        return {"updates": self._updates, "values": self.values}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        self._updates = int(state["updates"])
        for value, stored in zip(self.values, state["values"], strict=True):
            value.copy_(stored)

    @torch.no_grad()
    def _swap(self) -> None:
        for index, parameter in enumerate(self._parameters):
            own = parameter.detach().clone()
            parameter.copy_(self.values[index])
            self.values[index] = own
