"""Adds a Control to an LDM-layout U-Net by hooks; the U-Net's `forward` stays its own.

Bit-equal to cldm's `ControlledUnetModel.forward` (lllyasviel/ControlNet, cldm/cldm.py), which adds each residual to the
skip tensor before concatenation: here the same sum is formed in the last channels of the fresh concatenation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from ..core.control import Control


class LdmUNet(Protocol):
    """The attributes by which an LDM U-Net is known, whoever built it (ldm, sgm or ours)."""

    input_blocks: nn.ModuleList
    middle_block: nn.Module
    output_blocks: nn.ModuleList


UNetCall = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], "Control | None"]
"""(x, timesteps, context, y) of one U-Net call -> what to add."""

UNetConditions = Callable[[], "tuple[Tensor, Tensor | None]"]
"""The context and y that this call gets in place of its own."""

UNetOutput = Callable[[Tensor], Tensor]
"""The prediction of that call -> what the host gets."""

_ARGUMENTS = ("x", "timesteps", "context", "y")
"""Of `forward(x, timesteps=None, context=None, y=None)`, given by place (ldm) or by name (sgm)."""


def is_ldm_unet(module: object) -> bool:
    """True for a U-Net that `UNetHooks` can serve."""
    return isinstance(module, nn.Module) and all(
        isinstance(getattr(module, name, None), nn.Module) for name in ("input_blocks", "middle_block", "output_blocks")
    )


class UNetHooks:
    """Our hooks on one U-Net. `remove()` undoes them, twice is fine; nothing else of the U-Net is ever changed."""

    def __init__(
        self,
        unet: nn.Module,
        call: UNetCall,
        finish: UNetOutput | None = None,
        conditions: UNetConditions | None = None,
    ) -> None:
        self.unet = unet
        self._call = call
        self._conditions = conditions
        self._finish = finish
        self._control: Control | None = None
        self._handles: list[RemovableHandle] = []
        blocks = cast(LdmUNet, unet)
        self._blocks = len(blocks.input_blocks)
        try:
            self._install(unet, blocks)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Takes every hook of ours off the U-Net."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._control = None

    def _install(self, unet: nn.Module, blocks: LdmUNet) -> None:
        keep = self._handles.append
        keep(unet.register_forward_pre_hook(self._before, with_kwargs=True))
        for index, block in enumerate(blocks.input_blocks):
            keep(block.register_forward_hook(self._after_input(index)))
        keep(blocks.middle_block.register_forward_hook(self._after_middle))
        for index, block in enumerate(blocks.output_blocks):
            keep(block.register_forward_pre_hook(self._before_output(self._blocks - 1 - index)))
        if self._finish is not None:
            keep(unet.register_forward_hook(self._finished(self._finish)))
        keep(unet.register_forward_hook(self._after, always_call=True))

    def _before(self, _unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = _unet_arguments(args, kwargs)
        self._control = self._call(*given)
        if self._conditions is None:
            return None
        context, y = self._conditions()
        if context is given[2] and y is given[3]:
            return None
        return _with_arguments(args, kwargs, {"context": context, "y": y})

    @staticmethod
    def _finished(finish: UNetOutput) -> Callable[..., Tensor]:
        def hook(_unet: nn.Module, _args: object, output: Tensor) -> Tensor:
            return finish(output)

        return hook

    def _after(self, *_: object) -> None:
        self._control = None

    def _after_input(self, index: int) -> Callable[..., Tensor | None]:
        def hook(_block: nn.Module, _args: object, output: Tensor) -> Tensor | None:
            residual = _entry(self._control.encoder, index) if self._control else None
            return None if residual is None else output + _fitted(residual, output)

        return hook

    def _after_middle(self, _block: nn.Module, _args: object, output: Tensor) -> Tensor | None:
        residual = self._control.middle if self._control else None
        return None if residual is None else output + _fitted(residual, output)

    def _before_output(self, index: int) -> Callable[..., None]:
        def hook(_block: nn.Module, args: tuple[Any, ...]) -> None:
            residual = _entry(self._control.skip, index) if self._control else None
            if residual is not None:
                # The concatenation was made for this block alone, so adding in place is seen by nobody else.
                args[0][:, -residual.shape[1] :] += _fitted(residual, args[0])

        return hook


class RaisingHook:
    """Makes the next call of a U-Net raise: the way to stop a host that swallows exceptions of callbacks."""

    def __init__(self, unet: nn.Module, error: Exception) -> None:
        self._error = error
        self._handle = unet.register_forward_pre_hook(self._raise)

    def remove(self) -> None:
        """Disarms it; twice is fine."""
        self._handle.remove()

    def _raise(self, *_: object) -> None:
        raise self._error


def _unet_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The values of _ARGUMENTS in a call."""
    given = dict(zip(_ARGUMENTS, args, strict=False)) | {name: kwargs[name] for name in _ARGUMENTS if name in kwargs}
    return given["x"], given["timesteps"], given["context"], given.get("y")


def _with_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], changes: dict[str, Tensor | None]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with other values for some of _ARGUMENTS, each where it was given."""
    by_place = tuple(changes.get(name, value) for name, value in zip(_ARGUMENTS, args, strict=False))
    by_name = {name: changes.get(name, value) for name, value in kwargs.items()}
    return (*by_place, *args[len(_ARGUMENTS) :]), by_name


def _entry(residuals: tuple[Tensor | None, ...], index: int) -> Tensor | None:
    return residuals[index] if index < len(residuals) else None


def _fitted(residual: Tensor, features: Tensor) -> Tensor:
    """The residual in the dtype, device and size of `features` (nearest, as A1111 fits odd sizes)."""
    residual = residual.to(device=features.device, dtype=features.dtype)
    size, own = features.shape[2:], residual.shape[2:]
    if own in (size, torch.Size((1, 1))):
        return residual
    return functional.interpolate(residual, size, mode="nearest")
