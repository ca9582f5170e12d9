"""U-Nets that take residuals and options, and either call their blocks or the layers in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lib_controlnet.nets.blocks import TimestepEmbedSequential
from lib_controlnet.nets.unet import UNetModel, join
from standalone.forge.variants import Variant


class Block(TimestepEmbedSequential):
    """Gets two further arguments, which forward hooks on it see."""

    def forward(
        self, x: Tensor, emb: Tensor, context: Any = None, transformer_options: Any = None, output_shape: Any = None
    ) -> Tensor:
        return self.run(x, emb, context)


def forward_timestep_embed(
    ts: Any, x: Tensor, emb: Tensor, context: Any = None, transformer_options: Any = None, output_shape: Any = None
) -> Tensor:
    """The layers of a block one by one, as reForge and Classic call them: the block itself is not called."""
    return ts.run(x, emb, context)


def add_or_leave_out(h: Tensor, residual: Tensor) -> Tensor:
    """Adds in place; what cannot be added is left out, and only the console says so."""
    try:
        h += residual
    except RuntimeError:
        print("warning: control could not be applied", h.shape, residual.shape)
    return h


def add_fitted(h: Tensor, residual: Tensor) -> Tensor:
    """Adds in place, in the type and size of `h`."""
    residual = residual.to(h)
    if residual.shape[-2:] != h.shape[-2:]:
        residual = F.interpolate(residual.float(), size=h.shape[-2:], mode="bicubic", align_corners=False).to(h)
    h += residual
    return h


class ControlledUNet(UNetModel):
    """`control` has lists of residuals, taken from their ends: "input", "middle", "output" (for the skips)."""

    blocks_called = True
    add: Callable[[Tensor, Tensor], Tensor] = staticmethod(add_or_leave_out)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for block in (*self.input_blocks, self.middle_block, *self.output_blocks):
            block.__class__ = Block

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: Any = None,
        transformer_options: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """As UNetModel's, with residuals and the modifiers and patches of the options."""
        options = {} if transformer_options is None else transformer_options
        options["original_shape"], options["transformer_index"] = list(x.shape), 0
        emb = self.embed(timesteps, y)
        h = x.to(self.dtype)
        skips: list[Tensor] = []
        for index, block in enumerate(self.input_blocks):
            h = self._block(("input", index), block, h, emb, context, options, control)
            skips.append(h)
        h = self._block(("middle", 0), self.middle_block, h, emb, context, options, control)
        for index, block in enumerate(self.output_blocks):
            options["block"] = ("output", index)
            skip = self._controlled(skips.pop(), control, "output")
            for patch in options.get("patches", {}).get("output_block_patch", ()):
                h, skip = patch(h, skip, options)
            shape = skips[-1].shape if skips else None
            h = self._block(("output", index), block, join(h, skip), emb, context, options, None, shape)
        return self.out(h).to(x.dtype)

    def _controlled(self, h: Tensor, control: Any, name: str) -> Tensor:
        if not control or not control.get(name):
            return h
        residual = control[name].pop()
        return h if residual is None else type(self).add(h, residual)

    def _block(
        self,
        place: tuple[str, int],
        block: Any,
        h: Tensor,
        emb: Tensor,
        context: Any,
        options: Any,
        control: Any,
        *shape: Any,
    ) -> Tensor:
        options["block"] = place
        modifiers = options.get("block_modifiers", ())
        for modify in modifiers:
            h = modify(h, "before", options)
        called = block if self.blocks_called else partial(forward_timestep_embed, block)
        h = called(h, emb, context, options, *shape)
        h = self._controlled(h, control, place[0])
        for modify in modifiers:
            h = modify(h, "after", options)
        if place[0] == "input":
            for patch in options.get("patches", {}).get("input_block_patch", ()):
                h = patch(h, options)
        return h


def unet_class(variant: Variant) -> type[ControlledUNet]:
    """The class of one variant's U-Nets, under its name there."""
    adding = add_fitted if variant.resizes_residuals else add_or_leave_out
    module, _, name = variant.unet.rpartition(".")
    body = {"blocks_called": variant.blocks_called, "add": staticmethod(adding), "__module__": module}
    return type(name, (ControlledUNet,), body)
