"""Measuring on a graphics card: seconds between two waits for it, and the bytes PyTorch holds there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lib_controlnet.families.base import Runtime

from .measure import Stopwatch


def runtime_of(name: str) -> Runtime:
    """float32 on the CPU, half precision on a card. Raises ValueError where PyTorch does not see that card."""
    device = torch.device(name)
    if device.type == "cpu":
        return Runtime(device, torch.float32)
    module = getattr(torch, device.type, None)
    if module is None or not module.is_available():
        raise ValueError(f"PyTorch {torch.__version__} sees no device of the kind {device.type} here")
    return Runtime(device, torch.float16)


class CardStopwatch(Stopwatch):
    """An action is one stretch, from an idle card to an idle card. Where the card tells of it, none may wait for it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._api: Any = getattr(torch, device.type)

    def watch(self, network: object) -> None:
        """Layers are not timed: a card works them off later."""

    def stretches(self, action: Callable[[], object]) -> list[float]:
        """Run `action`. Raises RuntimeError where it makes the processor wait for the card."""
        self._api.synchronize()
        begin = time.perf_counter()
        with self._undisturbed():
            action()
        self._api.synchronize()
        return [time.perf_counter() - begin]

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        set_mode = getattr(self._api, "set_sync_debug_mode", None)
        if set_mode is None:
            yield
            return
        set_mode("error")
        try:
            yield
        finally:
            set_mode("default")


class CardMeter:
    """The most bytes of tensors on a card, beside those at its beginning, while it is active; as AllocationMeter."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.peak = 0

    def __enter__(self) -> CardMeter:
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        torch.cuda.synchronize(self._device)
        self.peak = torch.cuda.max_memory_allocated(self._device) - self._before
