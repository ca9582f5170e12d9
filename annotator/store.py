"""The networks that are loaded, by name; the least used go first when they become too many bytes.

Standard library only, as everything that the list of preprocessors reads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

GIB = 1 << 30
Network = TypeVar("Network")


class NetworkStore:
    """Networks shared by the preprocessors of one WebUI. `limit` is in bytes; one network may always stay."""

    def __init__(self, limit: int = 4 * GIB) -> None:
        self.limit = limit
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, key: str, make: Callable[[], Network]) -> Network:
        """The network of this key, made now if it is not there. What `make` raises is passed on and nothing is kept."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and self.size > self.limit:
                self._kept.popitem(last=False)
            return self._kept[key]

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(_size(network) for network in self._kept.values())

    def clear(self) -> None:
        """Forget every network; their memory is free once nobody runs one."""
        with self._lock:
            self._kept.clear()


def _size(network: Any) -> int:
    """Bytes of a torch module's weights, or what an object of another kind says of itself as `nbytes`."""
    parameters = getattr(network, "parameters", None)
    if parameters is None:
        return int(getattr(network, "nbytes", 0))
    return sum(weight.numel() * weight.element_size() for weight in parameters())
