"""Where a network's weights are: in the computer's memory for good, and on a device while it computes there."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .streaming import BlockStream

log = logging.getLogger("ControlNet")


@dataclass(eq=False)
class _Weight:
    """One parameter or buffer of a module. `home` is what the module holds while the weights are at home."""

    module: nn.Module
    name: str
    home: Tensor
    locked: Tensor | None = None
    """The memory of `home` where it is page-locked."""

    def copied(self, device: torch.device) -> Tensor:
        return self.home.detach().to(device) if self.locked is None else self.locked.to(device, non_blocking=True)

    def put(self, tensor: Tensor) -> None:
        setattr(self.module, self.name, self._like_home(tensor))

    def leave(self) -> None:
        setattr(self.module, self.name, self.home)

    def pin(self) -> None:
        if self.locked is None:
            self.locked = self.home.detach().pin_memory()
            self.home = self._like_home(self.locked)
            self.leave()

    def _like_home(self, tensor: Tensor) -> Tensor:
        is_parameter = isinstance(self.home, nn.Parameter)
        return nn.Parameter(tensor, requires_grad=self.home.requires_grad) if is_parameter else tensor


class Residence:
    """The weights of one network. What they are at home never leaves, so going there is free and copies nothing.

    `place`: where they are now, or where the network computes with them, block by block. `streams`: that can be done,
    because its blocks are always called as a whole; else all of it comes.
    """

    def __init__(self, network: nn.Module, *, streams: bool = True) -> None:
        self._network = network
        self._streams = streams
        self._stream: BlockStream | None = None
        self._weights = [
            _Weight(module, name, tensor)
            for module in network.modules()
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        ]
        self._home = self._weights[0].home.device if self._weights else torch.device("cpu")
        self.place = self._home
        self._pins = self._home.type == "cpu"
        """Page-locking is worth a try; False once it has failed."""

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(weight.home.numel() * weight.home.element_size() for weight in self._weights)

    @property
    def empty(self) -> bool:
        """There are no weights."""
        return not self._weights

    @property
    def away(self) -> bool:
        """They take memory of a device."""
        return self.place != self._home

    def come(self, device: torch.device, *, pinned: bool = False, by_block: bool = False) -> None:
        """Copies the weights to `device`; nothing where they are there. Where it fails they are at home.

        `by_block`: each block comes when it computes, and goes after that. `pinned`: for a CUDA device they are
        page-locked at home, at the first time: copies are faster, and nobody waits for them.
        """
        if self.place == device:
            return
        self.leave()
        by_block = by_block and self._streams
        if pinned and self._pins and device.type == "cuda":
            self._pin()
        try:
            if by_block:
                self._stream = BlockStream(self._network, self._weights, device)
            for weight in () if by_block else self._weights:
                weight.put(weight.copied(device))
        except BaseException:
            self.leave()
            raise
        self.place = device

    def leave(self) -> None:
        """Lets go of what is on a device. The weights are at home."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        for weight in self._weights:
            weight.leave()
        self.place = self._home

    def _pin(self) -> None:
        try:
            for weight in self._weights:
                weight.pin()
        except RuntimeError as error:  # the system grants no more of it: the rest is copied slower
            log.info("A control model stays in ordinary memory: %s", error)
            self._pins = False
