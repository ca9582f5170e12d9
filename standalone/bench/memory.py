"""The case about memory: what one ControlNet adds at the peak, from loading to the end of a step."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lib_controlnet.families.base import Runtime

from .card import CardMeter
from .measure import Goal, Progress, Result
from .stage import CPU, Stage

MIB = 1 << 20


class AllocationMeter(TorchDispatchMode):
    """Counts the bytes of tensor storages that come to be, and cease to be, while it is active.

    A storage counts from the operation that returns it first until Python lets go of it. Storages that an operation
    merely reads, as the pages of a mapped file, are nobody's allocation and do not count. What operations use inside
    themselves is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._meet(tensor, size=0)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._meet(tensor, size=tensor.untyped_storage().nbytes())
        return result

    def _meet(self, tensor: Tensor, size: int) -> None:
        """Count `size` bytes for the tensor's storage unless it is known."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        # PyTorch keeps one Python object a storage alive as long as the storage itself.
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.live -= size
        self._known.discard(key)


def memory_added(pixels: int, progress: Progress, runtime: Runtime = CPU) -> Result:
    """Bytes at the peak of loading a ControlNet and running a step, less those of a bare step, by its weights."""
    device = runtime.device
    meter = AllocationMeter if device.type != "cuda" else lambda: CardMeter(device)
    with Stage(pixels, runtime) as stage:
        progress("bare step")
        with meter() as bare:
            stage.bare_step()
        progress("loading and controlled step")
        with meter() as controlled:
            step = stage.controlled(stage.unit())
            step()
        weights = sum(p.numel() * p.element_size() for p in step.network.parameters())
    added = controlled.peak - bare.peak
    detail = f"{added / MIB:.0f} MiB for {weights / MIB:.0f} MiB of weights"
    return Result("memory_added", added / weights, Goal(1.1), detail)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.device.type != "meta"]
