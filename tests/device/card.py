"""Tensors of a pretended graphics card, and what the card refuses and records; see `pretend`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from standalone.bench.storages import StorageBytes

_ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(str(_ROOT / part) for part in ("lib_controlnet", "annotator", "standalone"))

ONE_TYPE = frozenset((
    "mm", "addmm", "bmm", "baddbmm", "convolution", "native_group_norm", "native_layer_norm", "lerp",
    "_scaled_dot_product_attention_math", "_scaled_dot_product_flash_attention_for_cpu",
))  # fmt: skip
"""Kernels that a card refuses for operands of different types, some of which a processor takes."""

WAITS = frozenset(("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "unique", "_unique2"))
"""Kernels whose result the processor waits for."""

MPS_LACKS = frozenset((
    "upsample_bicubic2d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "isin",
    "_fft_r2c", "_fft_c2r", "_fft_c2c",
))  # fmt: skip
"""Kernels that MPS has not in every release since 2.1."""

INDEXED = frozenset(("index", "index_put", "index_put_", "_index_put_impl_"))


class PretendedError(RuntimeError):
    """What a real card would not do."""


@dataclass(frozen=True)
class Event:
    """A copy ("up" to the card, "down" from it), a "sync", or a "cast" on the card."""

    kind: str
    detail: str
    place: str
    """The innermost lines of ours that caused it."""
    size: int = 0
    """Bytes of a copy."""
    waits: bool = False
    """The processor waits for it."""


class OnCard(Tensor):
    """A tensor of a pretended card. Its numbers are in `held`, in the processor's memory."""

    held: Tensor
    card: Card

    @staticmethod
    def __new__(cls, held: Tensor, card: Card) -> OnCard:
        made = cast(
            "OnCard",
            Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
                cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
                layout=held.layout, device="cpu", requires_grad=False,
            ),
        )  # fmt: skip
        made.held, made.card = held, card
        card.memory.meet(held)
        return made

    @property
    def device(self) -> torch.device:
        return self.card.device

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"OnCard({tuple(self.shape)}, {self.dtype}, {self.device})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        card = next(leaf.card for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, OnCard))
        return card.kernel(func, args, kwargs or {})


class Memory(StorageBytes):
    """The bytes that lie on a card, now and at most since `restart`."""

    def restart(self) -> None:
        """The peak counts from what lies there now."""
        self.peak = self.live


class Card:
    """One pretended card and what has happened to it since `restart`."""

    def __init__(self, kind: str) -> None:
        self.device = torch.device(kind, 0)
        self.memory = Memory()
        self.events: list[Event] = []
        self.kernels: Counter[str] = Counter()

    def restart(self) -> None:
        """Forgets events and kernels; the peak of the memory counts from now."""
        self.events.clear()
        self.kernels.clear()
        self.memory.restart()

    @property
    def copies(self) -> list[Event]:
        """Copies between host and card."""
        return [event for event in self.events if event.kind in ("up", "down")]

    @property
    def syncs(self) -> list[Event]:
        """Where the processor waited for the card: each blocking copy too."""
        return [event for event in self.events if event.waits]

    @property
    def casts(self) -> list[Event]:
        """Changes of type on the card."""
        return [event for event in self.events if event.kind == "cast"]

    def told(self) -> str:
        """The events by place, most frequent first, to be read."""
        counts = Counter((event.kind, event.place, event.detail) for event in self.events)
        return "\n".join(f"{n:4d} x {kind:5s} {place}  {what}" for (kind, place, what), n in counts.most_common())

    def tensor(self, tensor: Tensor) -> Tensor:
        """A copy on the card, which no event tells of."""
        return tensor if isinstance(tensor, OnCard) else OnCard(tensor.detach().clone(), self)

    def module(self, module: nn.Module) -> nn.Module:
        """The module itself, its weights and buffers now on the card, which no event tells of."""
        for part in module.modules():
            for name, value in list(part._parameters.items()):
                if value is not None:
                    part._parameters[name] = nn.Parameter(self.tensor(value), requires_grad=False)
            for name, value in list(part._buffers.items()):
                if value is not None:
                    part._buffers[name] = self.tensor(value)
        return module

    def host(self, value: Any) -> Any:
        """Any tree of tensors with those of the card replaced by what they hold, which no event tells of."""
        return tree_map(lambda leaf: leaf.held if isinstance(leaf, OnCard) else leaf, value)

    def is_here(self, device: torch.device | str | int | None) -> bool:
        """Whether a device is meant that is this card."""
        if device is None:
            return False
        return isinstance(device, int) or torch.device(device).type == self.device.type

    def note(self, kind: str, detail: str, size: int = 0, *, waits: bool = False) -> None:
        """Records an event of the code that is running."""
        self.events.append(Event(kind, detail, place(), size, waits))

    def moved(self, source: Tensor, to_card: bool, dtype: torch.dtype | None, blocking: bool = True) -> Tensor:
        """What `source.to(device, dtype)` does."""
        dtype = dtype or source.dtype
        if isinstance(source, OnCard) == to_card:
            if source.dtype == dtype:
                return source
            return OnCard.__torch_dispatch__(_CAST, (), (source,), {"dtype": dtype}) if to_card else source.to(dtype)
        held = source.held if isinstance(source, OnCard) else source
        self._checked_type(dtype)
        made = held.detach().to(dtype, copy=True)
        # What comes down without blocking does so into pinned memory of PyTorch's own, to be read after an event.
        waits = blocking or (to_card and not getattr(source, "pinned", False))
        self.note("up" if to_card else "down", f"{tuple(made.shape)} {dtype}", _bytes(made), waits=waits)
        return OnCard(made, self) if to_card else made

    def kernel(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Runs one kernel as the card would, where a tensor of it takes part."""
        name = func._schema.name.split("::")[1]
        self.kernels[name] += 1
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [leaf for leaf in leaves if isinstance(leaf, OnCard)]
        if name == "copy_":
            return self._copied_into(func, args, kwargs)
        if name in WAITS:
            self.note("sync", name, waits=True)
        if name in INDEXED:
            self._indexed(name, args)
        else:
            _refuse_other_device(name, [leaf for leaf in leaves if leaf.dim() and not isinstance(leaf, OnCard)])
        if name in ONE_TYPE and len({leaf.dtype for leaf in leaves}) > 1:
            raise PretendedError(f"{name}: {[(tuple(leaf.shape), leaf.dtype) for leaf in leaves]} at {place()}")
        if name == "_adaptive_avg_pool2d" and self.device.type == "mps":
            _refuse_undivided(args)
        if name in MPS_LACKS and self.device.type == "mps":
            raise PretendedError(f"MPS has no {name} in older releases, at {place()}")
        if name == "_to_copy" and kwargs.get("dtype") not in (None, args[0].dtype):
            self.note("cast", f"{args[0].dtype} -> {kwargs['dtype']} {tuple(args[0].shape)}")
        result = func(*self.host(args), **self.host({**kwargs, **({"device": "cpu"} if "device" in kwargs else {})}))
        return tree_map(lambda leaf: self._given_back(leaf, here), result)

    def _given_back(self, result: Any, operands: Iterable[OnCard]) -> Any:
        """A result on the card: the operand itself where a kernel works in place."""
        if not isinstance(result, Tensor):
            return result
        for operand in operands:
            if operand.held is result:
                return operand
        self._checked_type(result.dtype)
        return OnCard(result, self)

    def _checked_type(self, dtype: torch.dtype) -> None:
        if self.device.type == "mps" and dtype in (torch.float64, torch.complex128):
            raise PretendedError(f"MPS has no {dtype} at {place()}")

    def _copied_into(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        target, source = args[0], args[1]
        if isinstance(target, OnCard) != isinstance(source, OnCard):
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            kind = "up" if isinstance(target, OnCard) else "down"
            self.note(kind, f"copy_ {tuple(source.shape)}", _bytes(source), waits=waits)
        func(*self.host(args), **kwargs)
        return target

    def _indexed(self, name: str, args: Sequence[Any]) -> None:
        for index in args[1]:
            if index is not None and not isinstance(index, OnCard):
                self.note("up", f"{name} by a tensor or list of the host", _bytes(index), waits=True)
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self.note("sync", f"{name} by a mask", waits=True)


_CAST = torch.ops.aten._to_copy.default


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def place() -> str:
    """The two innermost lines of ours that are running."""
    frame, found = sys._getframe(2), list[str]()
    while frame is not None and len(found) < 2:
        name = frame.f_code.co_filename
        if name.startswith(_OURS):
            found.append(f"{Path(name).relative_to(_ROOT).as_posix()}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found) or "the test"


def _refuse_other_device(name: str, others: Sequence[Tensor]) -> None:
    if others:
        found = [(tuple(other.shape), other.dtype) for other in others]
        raise PretendedError(f"{name}: tensors of the host among those of the card, {found} at {place()}")


def _refuse_undivided(args: Sequence[Any]) -> None:
    sizes, wanted = args[0].shape[-2:], args[1]
    if any(have % want for have, want in zip(sizes, wanted, strict=True)):
        raise PretendedError(f"adaptive pool of {tuple(sizes)} to {tuple(wanted)} on MPS at {place()}")
