"""Adds residuals to an LDM-layout U-Net by hooks; the U-Net's `forward` stays its own.

Bit-equal to cldm's `ControlledUnetModel.forward` (lllyasviel/ControlNet, cldm/cldm.py), which adds each residual to the
skip tensor before concatenation: here the same sum is formed in the last channels of the fresh concatenation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from ..core.residuals import Residuals
from ..core.step import Step


class LdmUNet(Protocol):
    """The attributes by which an LDM U-Net is known, whoever built it (ldm, sgm or ours)."""

    input_blocks: nn.ModuleList
    middle_block: nn.Module
    output_blocks: nn.ModuleList


@dataclass(frozen=True, eq=False)
class UNetCall:
    """A U-Net call as its host makes it; see `core.step.Step` for the tensors."""

    x: Tensor
    timesteps: Tensor
    context: Tensor
    y: Tensor | None
    options: Mapping[str, object]
    """What the host says of the call itself (`transformer_options`), which is nothing in AUTOMATIC1111."""

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """As a Step begins."""
        return self.x, self.timesteps, self.context, self.y


class PassControl(Protocol):
    """All that acts in a pass as one: what a host's hooks drive, two calls for each of the U-Net's."""

    def begin(self, given: UNetCall) -> tuple[Step, Residuals | None]:
        """The call as the U-Net is to get it (its context and y count), and what is to be added to it."""
        ...

    def end(self, output: Tensor, left: Sequence[str]) -> Tensor:
        """The prediction for the host; `left` names the places whose residual was not added."""
        ...

    def done(self) -> None:
        """A call that has begun is over, whichever way."""
        ...


_ARGUMENTS = ("x", "timesteps", "context", "y")
"""Of `forward(x, timesteps=None, context=None, y=None)`, given by place (ldm) or by name (sgm)."""


def is_ldm_unet(module: object) -> bool:
    """True for a U-Net that `UNetHooks` can serve."""
    return isinstance(module, nn.Module) and all(
        isinstance(getattr(module, name, None), nn.Module) for name in ("input_blocks", "middle_block", "output_blocks")
    )


@dataclass(eq=False)
class CallUnderWay:
    """One U-Net call under way, and the places of its control that no block has come by yet."""

    begun: bool = False
    """The control was told of it."""
    control: Residuals | None = None
    left: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    lists: dict[str, list[Tensor | None]] = field(default_factory=dict[str, list["Tensor | None"]])
    """Where the U-Net takes the residuals itself: what it has not taken yet, by place."""

    def take(self, place: str, index: int) -> Tensor | None:
        """The residual of a place, if there is one."""
        if (place, index) in self.left:
            self.left.remove((place, index))
        return None if self.control is None else self.control.at(place, index)


class CallHooks:
    """Hooks around each call of one U-Net. `remove()` undoes them, twice is fine; nothing else of it is ever changed.

    How the residuals come into the call is left to those that derive from it.
    """

    def __init__(self, unet: nn.Module, control: PassControl) -> None:
        self.unet = unet
        self.paused = False
        """Calls that begin now are let pass as they are: removing hooks from within a U-Net call would upset it."""
        self._control = control
        self._calls: list[CallUnderWay] = []
        """Those under way: another extension may call the U-Net within a call of it."""
        self._handles: list[RemovableHandle] = []
        try:
            self._handles.append(unet.register_forward_pre_hook(self._before, with_kwargs=True))
            self._install()
            self._handles.append(unet.register_forward_hook(self._finish))
            self._handles.append(unet.register_forward_hook(self._after, always_call=True))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Takes every hook of ours off the U-Net."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        while self._calls:  # a call that broke off in a way that hooks are not told of
            self._after()

    def _install(self) -> None:
        """Hooks between the one before a call and the one after it."""

    def _further(self, call: CallUnderWay, x: Tensor, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Further arguments by name, by which the call's residuals come to the U-Net."""
        del call, x, kwargs
        return {}

    def _left(self, call: CallUnderWay) -> list[str]:
        """The places whose residual was not added in a call that has ended."""
        return [f"{place} {index}" for place, index in sorted(call.left)]

    def _before(self, _unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = CallUnderWay()
        self._calls.append(call)
        if self.paused:
            return None
        given = _unet_call(args, kwargs)
        step, call.control = self._control.begin(given)
        call.begun = True
        call.left = set() if call.control is None else set(call.control.places())
        further = {} if call.control is None else self._further(call, given.x, kwargs)
        if step.context is given.context and step.y is given.y and not further:
            return None
        args, kwargs = _with_arguments(args, kwargs, {"context": step.context, "y": step.y})
        return args, {**kwargs, **further}

    def _finish(self, _unet: nn.Module, _args: object, output: Tensor) -> Tensor | None:
        call = self._calls[-1] if self._calls else None
        if call is None or not call.begun:
            return None
        return self._control.end(output, self._left(call))

    def _after(self, *_: object) -> None:
        if self._calls and self._calls.pop().begun:
            self._control.done()


class UNetHooks(CallHooks):
    """Adds the residuals by hooks on the blocks."""

    def _install(self) -> None:
        keep, blocks = self._handles.append, cast(LdmUNet, self.unet)
        for index, block in enumerate(blocks.input_blocks):
            keep(block.register_forward_hook(self._after_block("encoder", index)))
        keep(blocks.middle_block.register_forward_hook(self._after_block("middle", 0)))
        last = len(blocks.input_blocks) - 1
        for index, block in enumerate(blocks.output_blocks):
            keep(block.register_forward_pre_hook(self._before_output(last - index)))

    def _take(self, place: str, index: int) -> Tensor | None:
        return self._calls[-1].take(place, index) if self._calls else None

    def _after_block(self, place: str, index: int) -> Callable[..., Tensor | None]:
        def hook(_block: nn.Module, _args: object, output: Tensor) -> Tensor | None:
            residual = self._take(place, index)
            return None if residual is None else output + fitted(residual, output, output.shape[2:])

        return hook

    def _before_output(self, index: int) -> Callable[..., None]:
        def hook(_block: nn.Module, args: tuple[Any, ...]) -> None:
            residual = self._take("skip", index)
            if residual is not None:
                # The concatenation was made for this block alone, so adding in place is seen by nobody else.
                args[0][:, -residual.shape[1] :] += fitted(residual, args[0], args[0].shape[2:])

        return hook


class RaisingHook:
    """Makes every call of a U-Net raise: the way to stop a host that swallows exceptions of callbacks."""

    def __init__(self, unet: nn.Module, error: Exception) -> None:
        self._error = error
        self._handle = unet.register_forward_pre_hook(self._raise)

    def remove(self) -> None:
        """Disarms it; twice is fine."""
        self._handle.remove()

    def _raise(self, *_: object) -> None:
        raise self._error


def _unet_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> UNetCall:
    """The values of _ARGUMENTS in a call, and what it says of itself."""
    given = dict(zip(_ARGUMENTS, args, strict=False)) | {name: kwargs[name] for name in _ARGUMENTS if name in kwargs}
    options: Mapping[str, object] = kwargs.get("transformer_options") or {}
    return UNetCall(given["x"], given["timesteps"], given["context"], given.get("y"), options)


def _with_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], changes: dict[str, Tensor | None]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with other values for some of _ARGUMENTS, each where it was given."""
    by_place = tuple(changes.get(name, value) for name, value in zip(_ARGUMENTS, args, strict=False))
    by_name = {name: changes.get(name, value) for name, value in kwargs.items()}
    return (*by_place, *args[len(_ARGUMENTS) :]), by_name


def fitted(residual: Tensor, like: Tensor, size: Sequence[int]) -> Tensor:
    """The residual in the dtype and device of `like` and of `size` (h, w) (nearest, as A1111 fits odd sizes)."""
    residual = residual.to(device=like.device, dtype=like.dtype)
    own = residual.shape[2:]
    if own in (torch.Size(size), torch.Size((1, 1))):
        return residual
    return functional.interpolate(residual, tuple(size), mode="nearest")
