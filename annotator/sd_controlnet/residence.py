"""Networks that lie in the computer's memory and are on the graphics card only while they work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

CPU = "cpu"


class Residence:
    """One network's weights, whose masters never leave the computer's memory.

    What goes to a device are copies, so that the way back costs nothing. Tensors that a library keeps beside its
    parameters and buffers, as plain attributes of a module, go along.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._masters: dict[int, tuple[Tensor, Tensor]] = {}
        """By the identity of a copy, the copy and its master."""
        self.device = CPU

    def bring(self, device: str) -> None:
        """Let the network work on `device`. Where there is no room for it, it stays where its masters are."""
        if device == self.device:
            return
        self.put_away()
        if torch.device(device).type == CPU:
            return
        copies: dict[int, Tensor] = {}
        places = list(_held(self._network))
        for _, _, master in places:
            if id(master) not in copies:
                copies[id(master)] = _copy(master, device)
        for holder, name, master in places:
            holder[name] = copies[id(master)]
        self._masters = {id(copies[id(master)]): (copies[id(master)], master) for _, _, master in places}
        self.device = device

    def put_away(self) -> None:
        """Leave the device: the masters are the weights again, and what was computed there meanwhile comes back."""
        if self.device == CPU:
            return
        for holder, name, tensor in list(_held(self._network)):
            if id(tensor) in self._masters:
                holder[name] = self._masters[id(tensor)][1]
            elif tensor.device.type != CPU:
                holder[name] = tensor.cpu()
        self._masters = {}
        self.device = CPU


def _held(network: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Every tensor of a network, as the dictionary and the name that hold it."""
    for module in network.modules():
        for holder in (module._parameters, module._buffers, vars(module)):
            yield from ((holder, name, value) for name, value in list(holder.items()) if isinstance(value, Tensor))


def _copy(master: Tensor, device: str) -> Tensor:
    copy = master.detach().to(device)
    return nn.Parameter(copy, requires_grad=False) if isinstance(master, nn.Parameter) else copy
