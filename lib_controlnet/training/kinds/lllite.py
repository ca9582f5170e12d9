"""ControlLLLite (kohya-ss): narrow layers before projections of the U-Net, which see the map."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...loading.lazy import outlines
from ...loading.lllite import layer_of, ldm_names
from ...nets.blocks import TimestepEmbedSequential
from ...nets.config import UNetConfig
from ...nets.layers import layer_inputs
from ...nets.lllite import PREFIX, LLLite, LLLiteModule, LLLiteSizes, lllite_sizes
from ...nets.unet import UNetModel
from ..config import ControlOptions, TrainConfig
from .base import Control, Writer, beside, fitting, load_into, other_kind, started
from .controlnet import write_file
from .weaving import Weave, woven_forward

_ATTENTION = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q")
_OF_TEXT = ("attn2.to_k", "attn2.to_v")
_DEEPEST = 3


class LLLiteKind:
    id = "lllite"
    modelspec = "control-net-lllite"
    latent_hints = False

    @property
    def formats(self) -> Mapping[str, Writer]:
        return {"v1.1": write_file}

    def new(self, unet: UNetModel, config: TrainConfig) -> Control:
        """Modules of `control.rank` before layers that `control.layers` names, or those of the file `base.start`."""
        weights = started(config, unet)
        if weights is None:
            sizes = sizes_for(unet.config, config.control)
            fitting(config, "" if sizes else "its encoder has no attention")
            with beside(unet):
                return LLLiteControl(LLLite(sizes))
        weights = ldm_names(weights, PREFIX)
        if not weights or not all(key.startswith(PREFIX) for key in weights):
            raise other_kind(config, "no ControlLLLite", "one")
        net = LLLite(lllite_sizes(outlines(weights)))
        load_into(net, weights, config)
        known = layer_inputs(unet.config)
        strange = [place for place in net.places if layer_of(place.removeprefix(PREFIX)) not in known]
        fitting(config, f"the checkpoint has no layer for {strange[0]}" if strange else "")
        return LLLiteControl(net)


KIND = LLLiteKind()


def sizes_for(unet: UNetConfig, options: ControlOptions) -> dict[str, LLLiteSizes]:
    """Of each module by its name in the file, before layers of encoder and middle."""
    made: dict[str, LLLiteSizes] = {}
    for name, layer in layer_inputs(unet).items():
        inside = name.startswith(("input_blocks.", "middle_block.")) and name != "input_blocks.0.0"
        wanted = not name.endswith(_OF_TEXT) if options.layers == "all" else name.endswith(_ATTENTION)
        if inside and wanted:
            place = PREFIX + name.replace(".", "_")
            depth = min(_level(name, unet) + 1, _DEEPEST)
            made[place] = LLLiteSizes(layer.channels, options.rank, options.condition_channels, depth, layer.conv)
    return made


def _level(name: str, unet: UNetConfig) -> int:
    """How often what the layer gets has been halved."""
    block = name.split(".")
    if block[0] == "middle_block":
        return len(unet.channel_mult) - 1
    level = int(block[1]) // (unet.num_res_blocks + 1)
    return level - 1 if name.endswith(".0.op") else level


class _Seen:
    """The map in -1..1, and what modules see of it, which is computed once where nothing learns."""

    def __init__(self, image: Tensor) -> None:
        self._image = image
        self._known: dict[Any, Tensor] = {}

    def at(self, module: LLLiteModule, size: tuple[int, int]) -> Tensor:
        if torch.is_grad_enabled():
            return module.conditioned(self._image.to(module.dtype), size)
        key = id(module), size
        if key not in self._known:
            self._known[key] = module.conditioned(self._image.to(module.dtype), size)
        return self._known[key]


class LLLiteControl(Control):
    """`net` has the modules of one file."""

    def __init__(self, net: LLLite) -> None:
        super().__init__(net)
        self._layers: dict[str, dict[str, LLLiteModule]] = {}
        """Block -> layer -> the module before it."""
        for place in net.places:
            layer = layer_of(place.removeprefix(PREFIX))
            parts = layer.split(".")
            block = parts[0] if parts[0] == "middle_block" else ".".join(parts[:2])
            self._layers.setdefault(block, {})[layer] = net.at(place)

    def encode(self, hints: Tensor) -> _Seen:
        return _Seen(hints * 2 - 1)

    def predict(
        self, unet: UNetModel, x: Tensor, timesteps: Tensor, context: Tensor, features: _Seen, y: Tensor | None = None,
        weight: float = 1.0,
    ) -> Tensor:  # fmt: skip
        return woven_forward(unet, _Modules(unet, self._layers, features, weight), x, timesteps, context, y)


class _Modules(Weave):
    def __init__(
        self, unet: UNetModel, layers: Mapping[str, Mapping[str, LLLiteModule]], seen: _Seen, weight: float
    ) -> None:
        self._unet, self._layers, self._seen, self._weight = unet, layers, seen, weight

    def run(self, name: str, block: TimestepEmbedSequential, h: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """The modules are before their layers also when activations are computed again."""
        layers = self._layers.get(name)
        if not layers:
            return block(h, emb, context)
        size = int(h.shape[-2]), int(h.shape[-1])

        def run(h: Tensor, emb: Tensor, context: Tensor) -> Tensor:
            with self._in_place(layers, size):
                return block.run(h, emb, context)

        if block.checkpointing and torch.is_grad_enabled():
            return cast("Tensor", checkpoint(run, h, emb, context, use_reentrant=False))
        return run(h, emb, context)

    @contextlib.contextmanager
    def _in_place(self, layers: Mapping[str, LLLiteModule], size: tuple[int, int]) -> Iterator[None]:
        handles = [
            self._unet.get_submodule(name).register_forward_pre_hook(self._hook(module, size))
            for name, module in layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, module: LLLiteModule, size: tuple[int, int]) -> Any:
        def before(layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            del layer
            x = given[0]
            added = module(x, self._seen.at(module, size))
            return (x + added.to(x.dtype) * self._weight, *given[1:])

        return before
