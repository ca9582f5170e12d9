"""A network computed on a device that is too small for it: each of its blocks is there only while it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Movable(Protocol):
    """A parameter or buffer that can be elsewhere than at home."""

    module: nn.Module

    def copied(self, device: torch.device) -> Tensor:
        """A copy of it on `device`."""
        ...

    def put(self, tensor: Tensor) -> None:
        """The module computes with `tensor` in its place."""
        ...

    def leave(self) -> None:
        """The module has what it has at home."""
        ...


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """The parts that are called as a whole: children, but of lists and sequences each member."""
    for child in network.children():
        if isinstance(child, (nn.ModuleList, nn.Sequential)):
            yield from blocks_of(child)
        else:
            yield child


class BlockStream:
    """Hooks that bring a block's weights before it computes and let go of them after it; `close` takes them off.

    On CUDA the block that came next in the call before is copied on a stream of its own while this one computes, so
    that two blocks are there at most. Elsewhere each waits for its copy.
    """

    def __init__(self, network: nn.Module, weights: Sequence[Movable], device: torch.device) -> None:
        self._device = device
        self._blocks = [block for block in blocks_of(network) if any(True for _ in block.parameters())]
        within = [{id(module) for module in block.modules()} for block in self._blocks]
        self._weights = [[weight for weight in weights if id(weight.module) in ids] for ids in within]
        known = set[int]().union(*within)
        self._loose = [weight for weight in weights if id(weight.module) not in known]
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" and torch.cuda.is_available() else None
        self._coming: dict[int, tuple[list[Tensor], Any]] = {}
        """Copies under way, with the event after which they are whole."""
        self._there: dict[int, list[Tensor]] = {}
        self._followers: dict[int, int] = {}
        """Which block came after which."""
        self._last: int | None = None
        for weight in self._loose:
            weight.put(weight.copied(device))
        self._handles: list[Any] = []
        for index, block in enumerate(self._blocks):
            bring, drop = partial(self._bring, index), partial(self._drop, index)
            self._handles.append(block.register_forward_pre_hook(bring))
            self._handles.append(block.register_forward_hook(drop, always_call=True))

    def close(self) -> None:
        """Takes the hooks off; what is on the device goes, and where the weights then are is the caller's."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._coming.clear()
        self._there.clear()

    def _bring(self, index: int, *_: object) -> None:
        tensors = self._arrived(index)
        if tensors is None:
            tensors = [weight.copied(self._device) for weight in self._weights[index]]
        for weight, tensor in zip(self._weights[index], tensors, strict=True):
            weight.put(tensor)
        self._there[index] = tensors
        if self._last is not None:
            self._followers[self._last] = index
        self._last = index
        self._send_for(self._followers.get(index))

    def _arrived(self, index: int) -> list[Tensor] | None:
        """What was sent for, once it is whole; None where another block was expected."""
        found = self._coming.pop(index, None)
        self._coming.clear()
        if found is None:
            return None
        tensors, whole = found
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(whole)
        for tensor in tensors:
            tensor.record_stream(stream)
        return tensors

    def _send_for(self, index: int | None) -> None:
        if self._copying is None or index is None or index in self._there:
            return
        with torch.cuda.stream(self._copying):
            tensors = [weight.copied(self._device) for weight in self._weights[index]]
        self._coming[index] = tensors, self._copying.record_event()

    def _drop(self, index: int, *_: object) -> None:
        for weight in self._weights[index]:
            weight.leave()
        self._there.pop(index, None)
