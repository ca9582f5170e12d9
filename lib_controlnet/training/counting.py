"""Peak memory of a computation, counted: by sizes alone on tensors without content, or beside a real run."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class PeakCounter(TorchDispatchMode):
    """While it is entered, `now` is the bytes of all storages that were made by PyTorch or told by `hold` and are still
    alive, and `peak` the most of it. What a kernel takes for itself and gives back is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, Any] = {}

    def hold(self, *things: nn.Module | Tensor) -> None:
        """Count what was made before, each storage once."""
        for thing in things:
            tensors = [thing] if isinstance(thing, Tensor) else [*thing.parameters(), *thing.buffers()]
            for tensor in tensors:
                self._see(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        self._see_all(tree_flatten(answer)[0])
        return answer

    def _see_all(self, found: Iterable[Any]) -> None:
        for tensor in found:
            if isinstance(tensor, Tensor):
                self._see(tensor)

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        number = storage._cdata
        if number in self._alive:
            return
        size = storage.nbytes()
        self._alive[number] = weakref.ref(storage, lambda _: self._gone(number, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, number: int, size: int) -> None:
        del self._alive[number]
        self.now -= size
