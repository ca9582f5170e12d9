"""Bytes of tensor storages that are alive, now and at the peak."""

from __future__ import annotations

import weakref

from torch import Tensor


class StorageBytes:
    """Counts each storage once for all its views, until Python lets go of it."""

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def meet(self, tensor: Tensor, size: int | None = None) -> None:
        """Count the tensor's storage, as `size` bytes where that is given, unless it is known."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if size is None else size
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        # PyTorch keeps one Python object a storage alive as long as the storage itself.
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.live -= size
        self._known.discard(key)
