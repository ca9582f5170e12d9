"""The case about memory: what one ControlNet adds at the peak, from loading to the end of a step."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lib_controlnet.families.base import Runtime

from .card import CardMeter
from .measure import Goal, Progress, Result
from .stage import CPU, Stage
from .storages import StorageBytes

MIB = 1 << 20


class AllocationMeter(TorchDispatchMode):
    """Counts the bytes of tensor storages that come to be, and cease to be, while it is active.

    A storage counts from the operation that returns it first until Python lets go of it. Storages that an operation
    merely reads, as the pages of a mapped file, are nobody's allocation and do not count. What operations use inside
    themselves is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._storages = StorageBytes()

    @property
    def peak(self) -> int:
        """The most bytes at a time."""
        return self._storages.peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._storages.meet(tensor, size=0)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._storages.meet(tensor)
        return result


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
