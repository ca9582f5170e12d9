"""A graphics card that is pretended: tensors that say they are on it and compute on the processor.

What a real card would refuse is refused here too: tensors of two devices or two types in one kernel, float64 on MPS,
pools that do not divide there. What would cost time there is recorded: copies between host and card, waits for the card
(syncs), casts, and the bytes that lie on it. In float32 the numbers are the processor's to the bit.

    with pretended("cuda") as card:
        net = card.module(net)
        output = net(card.tensor(x))
        assert not card.syncs
        assert torch.equal(card.host(output), expected)

Only the state of `pretended` is changed, and only inside it; tensors of a card must not outlive it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .card import Card, OnCard, PretendedError, place

__all__ = ["Card", "OnCard", "PretendedError", "pretended"]


class _Functions(TorchFunctionMode):
    """What PyTorch decides on by a tensor's device before any kernel runs."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = dict(kwargs or {})
        special = _SPECIAL.get(func)
        if special is not None:
            return special(self.card, func, args, kwargs)
        if self.card.is_here(kwargs.get("device")):
            made = func(*args, **{**kwargs, "device": "cpu"})
            return made if isinstance(made, OnCard) else OnCard(made, self.card)
        return func(*args, **kwargs)


def _to(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    source = args[0]
    like = next((value for value in (*args[1:2], kwargs.get("other")) if isinstance(value, Tensor)), None)
    given = [*args[1:3], kwargs.get("device"), kwargs.get("dtype")]
    device = next((value for value in given if isinstance(value, (str, int, torch.device)) and value is not True), None)
    dtype = next((value for value in given if isinstance(value, torch.dtype)), None)
    if like is not None:
        device, dtype = like.device, like.dtype
    stays = device is None or card.is_here(device) == isinstance(source, OnCard)
    if stays:
        if dtype is None and not kwargs.get("copy") and "memory_format" not in kwargs:
            return source
        rest = {key: value for key, value in kwargs.items() if key in ("copy", "memory_format")}
        return func(source, dtype or source.dtype, **rest)
    blocking = not kwargs.get("non_blocking", len(args) > 3 and args[3] is True)
    moved = card.moved(source, card.is_here(device), dtype, blocking)
    return moved if kwargs.get("memory_format") is None else moved.contiguous(memory_format=kwargs["memory_format"])


def _tensor(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """`torch.tensor` and `torch.as_tensor`."""
    device = kwargs.pop("device", None)
    if args and isinstance(args[0], OnCard):
        return _to(card, Tensor.to, args[:1], {**kwargs, "device": device})
    made = func(*args, **kwargs) if device is None or card.is_here(device) else func(*args, **kwargs, device=device)
    return card.moved(made, True, None) if card.is_here(device) else made


def _new_tensor(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if not isinstance(args[0], OnCard):
        return func(*args, **kwargs)
    return card.moved(torch.tensor(args[1], dtype=kwargs.get("dtype") or args[0].dtype), True, None)


def _cpu(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    return card.moved(args[0], False, None) if isinstance(args[0], OnCard) else func(*args, **kwargs)


def _cuda(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    del func, kwargs
    return card.moved(args[0], True, None)


def _tolist(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    return func(card.moved(args[0], False, None) if isinstance(args[0], OnCard) else args[0], **kwargs)


def _numpy(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if isinstance(args[0], OnCard):
        raise TypeError(f"can't convert a tensor of {card.device} to numpy at {place()}")
    return func(*args, **kwargs)


def _pinned(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Memory that a card may read by itself: a mark is all there is to it here."""
    del card, func, kwargs
    made = args[0].clone()
    made.pinned = True
    return made


def _is_pinned(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    del card, func, kwargs
    return bool(getattr(args[0], "pinned", False))


def _type_as(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    del func, kwargs
    return _to(card, Tensor.to, args, {})


def _set_data(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """`parameter.data = value`, by which modules move: the same object afterwards, wherever its numbers lie."""
    del card
    target, value = args
    if isinstance(target, OnCard) or isinstance(value, OnCard):
        value = nn.Parameter(value, requires_grad=False) if isinstance(target, nn.Parameter) else value.detach()
        torch.utils.swap_tensors(target, value)
    else:
        func(*args, **kwargs)


def _nothing(card: Card, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    del card, func, args, kwargs


_SPECIAL: dict[Any, Callable[[Card, Any, Sequence[Any], dict[str, Any]], Any]] = {
    Tensor.to: _to, torch.tensor: _tensor, torch.as_tensor: _tensor, torch.asarray: _tensor,
    Tensor.new_tensor: _new_tensor, Tensor.cpu: _cpu, Tensor.cuda: _cuda, Tensor.tolist: _tolist,
    Tensor.numpy: _numpy, Tensor.__array__: _numpy, Tensor.pin_memory: _pinned, Tensor.is_pinned: _is_pinned,
    Tensor.type_as: _type_as, Tensor.data.__set__: _set_data, Tensor.record_stream: _nothing,
}  # fmt: skip


class _Kernels(TorchDispatchMode):
    """Sees the kernels of plain tensors too: none of them may write into a card's."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if any(isinstance(leaf, OnCard) for leaf in tree_leaves((args, kwargs))):
            return self.card.kernel(func, args, kwargs)
        return func(*args, **kwargs)


@contextmanager
def pretended(kind: str = "cuda") -> Generator[Card]:
    """A card of a kind ("cuda", "mps") while the block lasts, without gradients."""
    card = Card(kind)
    with _Functions(card), _Kernels(card), torch.no_grad():
        yield card
