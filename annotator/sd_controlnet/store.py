"""The networks that are loaded, by name; the least used go first when they become too many bytes.

They lie in the computer's memory, and on the device only while a preprocessor works. Standard library only, as
everything that the list of preprocessors reads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

GIB = 1 << 30
CPU = "cpu"
Network = TypeVar("Network")


class NetworkStore:
    """Networks shared by the preprocessors of one WebUI. `limit` is in bytes; one network may always stay.

    A torch module is brought to the device that it is asked for on, as copies of what lies in the computer's memory.
    An object of another kind is where it was made, and says where with `device` unless that is the CPU.
    """

    def __init__(self, limit: int = 4 * GIB) -> None:
        self.limit = limit
        self._kept: OrderedDict[str, _Kept[Any]] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, key: str, make: Callable[[], Network], device: str = CPU) -> Network:
        """The network of this key on `device`, made now if it is not there.

        What `make` raises is passed on and nothing is kept.
        """
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or not kept.can_serve(device):
                kept = self._kept[key] = _Kept(make(), device)
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and self.size > self.limit:
                self._kept.popitem(last=False)
            kept.bring(device)
            return kept.network

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(_size(kept.network) for kept in self._kept.values())

    def put_away(self) -> None:
        """Leave the devices: nothing of a network lies there afterwards, and those that can live nowhere else go."""
        with self._lock:
            for key, kept in list(self._kept.items()):
                if not kept.put_away():
                    del self._kept[key]

    def clear(self) -> None:
        """Forget every network, which must not be running; whoever still has one has it on the CPU."""
        with self._lock:
            self.put_away()
            self._kept.clear()


class _Kept(Generic[Network]):
    """A network, and how it comes to the device and off it."""

    def __init__(self, network: Network, device: str) -> None:
        self.network = network
        self._made_for = device
        self._residence: Any = None
        if callable(getattr(network, "modules", None)):
            from .residence import Residence

            self._residence = Residence(network)  # type: ignore[arg-type]

    def can_serve(self, device: str) -> bool:
        """Whether it can work on `device`."""
        return self._residence is not None or self._made_for == device

    def bring(self, device: str) -> None:
        """Let it work on `device`."""
        if self._residence is not None:
            self._residence.bring(device)

    def put_away(self) -> bool:
        """Whether it is off every device now; one that is not must be forgotten."""
        if self._residence is None:
            return getattr(self.network, "device", CPU) == CPU
        self._residence.put_away()
        return True


def _size(network: Any) -> int:
    """Bytes of a torch module's weights, or what an object of another kind says of itself as `nbytes`."""
    parameters = getattr(network, "parameters", None)
    if parameters is None:
        return int(getattr(network, "nbytes", 0))
    return sum(weight.numel() * weight.element_size() for weight in parameters())
