"""Control computed on a CUDA stream of its own, beside the U-Net's encoder, which does not need it yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..core.residuals import Residuals
from ..core.rows import RowTensors
from ..core.step import Step


class _Arrival:
    """When control computed elsewhere may be read on the stream that reads it."""

    def __init__(self, streams: Any, device: torch.device, done: Any) -> None:
        self._streams = streams
        self._device = device
        self._done = done
        self._waited = False

    def join(self) -> None:
        """The reading stream waits, once; the processor does not."""
        if not self._waited:
            self._waited = True
            self._streams.current_stream(self._device).wait_event(self._done)

    def read(self, tensor: Tensor) -> Tensor:
        """`tensor`, which the reading stream may read; its memory is not used anew before it has done so."""
        self.join()
        tensor.record_stream(self._streams.current_stream(self._device))
        return tensor


@dataclass(frozen=True)
class _ControlBeside(Residuals):
    """Waits where its first residual is needed."""

    arrival: _Arrival | None = None

    def at(self, place: str, index: int) -> Tensor | None:
        tensor = super().at(place, index)
        return tensor if tensor is None or self.arrival is None else self.arrival.read(tensor)


class SideStream:
    """The stream of one session. `streams`: `torch.cuda`, or what stands in for it."""

    def __init__(self, streams: Any = torch.cuda) -> None:
        self._streams = streams
        self._stream: Any = None
        self._kept = RowTensors()
        """The pass's own tensors are made on the U-Net's stream, and these on this one: neither waits for the other."""
        self._arrival: _Arrival | None = None
        self.useless = False
        """Residuals go into the encoder, which has to wait for them at once."""

    def control(self, step: Step, compute: Callable[[Step], Residuals | None]) -> Residuals | None:
        """What `compute` gives for `step`, without a wait for it."""
        device = step.x.device
        if self._stream is None:
            self._stream = self._streams.Stream(device)
        self._stream.wait_stream(self._streams.current_stream(device))
        for tensor in (getattr(step, each.name) for each in fields(step)):
            if isinstance(tensor, Tensor):
                tensor.record_stream(self._stream)
        with self._streams.stream(self._stream):
            control = compute(replace(step, kept=self._kept))
            self._arrival = _Arrival(self._streams, device, self._stream.record_event())
        if control is None:
            return None
        self.useless = any(tensor is not None for tensor in control.encoder)
        return _ControlBeside(control.encoder, control.skip, control.middle, self._arrival)

    def finish(self) -> None:
        """The U-Net's call has ended: nothing goes on beside it, whatever of the control was read."""
        if self._arrival is not None:
            self._arrival.join()
            self._arrival = None
