"""ControlLLLite (kohya-ss, 2023): narrow layers before the U-Net's attention projections, which see a control image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..core.checkpoint import of_rows
from ..core.errors import HostError, ModelFileError
from ..core.hints import Hint
from ..core.precision import own_types
from ..core.sites import FeaturePatch, SiteCall, UNetSites
from ..loading.build import fill
from ..loading.detect import KeyCondition
from ..loading.lazy import outlines
from ..loading.lllite import layer_of, ldm_names
from ..nets.config import UNetConfig
from ..nets.layers import layer_inputs
from ..nets.lllite import PREFIX, LLLite, LLLiteModule, LLLiteSizes, lllite_sizes
from ..nets.operations import Operations
from ..nets.residence import Residence
from .base import BaseModel, BoundControl, PlainModel, Runtime, Sheet, UnitSettings, Weights, check_base
from .hinted import joined

_CHANNELS = 3
_OF_TEXT = ("attn2.to_k", "attn2.to_v")
_SDXL_WIDTHS, _SD_WIDTHS = (640, 1280), (320, 640, 1280)

Sizes = Mapping[str, LLLiteSizes]


class LLLiteFamily:
    """Detects by the names of its modules, which are those of the layers before which they act."""

    id = "lllite"
    shares: Mapping[str, float] = {}
    before: Sequence[str] = ()
    condition = KeyCondition(any_of=(f"{PREFIX}*",))

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedLLLite:
        """Builds the modules and fills them. Raises ModelFileError where names or shapes do not fit."""
        del metadata
        weights = ldm_names(weights, PREFIX)
        sizes = _sizes(outlines(weights))
        net = fill(
            lambda: LLLite(sizes, Operations()),
            weights,
            dtype=runtime.dtype,
            device="cpu",
            name=path.name,
            layout=runtime.layout,
        )
        return LoadedLLLite(path, net, sizes)

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the names and shapes tell before the file is loaded."""
        del path
        sizes = _sizes(outlines(ldm_names(weights, PREFIX)))
        return Sheet(0, _made_for(sizes), lambda base: not _disagreement(sizes, base.config))


FAMILY = LLLiteFamily()


class LoadedLLLite(PlainModel):
    """One file's modules. It takes one weight, which all of them have."""

    def __init__(self, path: Path, net: LLLite, sizes: Sizes) -> None:
        self.path = path
        self.net = net
        self.residence = Residence(net, streams=False)
        self._sizes = sizes

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where `base` has not the layers before which the modules act."""
        check_base(self.path, base, _made_for(self._sizes), _disagreement(self._sizes, base.config))

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundLLLite:
        """The modules with hints (1, 3, H, W) of one size: one, or one for each image of the batch."""
        return BoundLLLite(self, joined(hints, _CHANNELS, settings, self.path))


class BoundLLLite(BoundControl):
    """The modules with one unit's hints. What they see of these is computed once a pass."""

    obeys_mode = False
    """Colours go astray where cond rows alone are controlled (sd-scripts, docs/train_lllite_README.md)."""
    in_layers = True

    def __init__(self, model: LoadedLLLite, hint: Tensor) -> None:
        self._model = model
        self._image = hint.clamp(min=0.0) * 2.0 - 1.0  # what an inpaint map masks is black

    def attach(self, sites: UNetSites) -> None:
        """One place a module."""
        for place in self._model.net.places:
            sites.before(layer_of(place.removeprefix(PREFIX)), self._patch(self._model.net.at(place)))

    def _patch(self, module: LLLiteModule) -> FeaturePatch:
        seen: dict[tuple[tuple[int, int], torch.device], Tensor] = {}

        def patch(call: SiteCall, given: Tensor) -> Tensor:
            device, dtype = self._model.residence.place, module.dtype
            key = (call.size, device)
            with own_types((given.device, device)):
                if key not in seen:
                    seen[key] = module.conditioned(self._image.to(device, dtype), call.size)
                conditioned = of_rows(seen[key], call.step)
                own = _own(given, conditioned)
                added = module(own.to(device, dtype), conditioned).to(given) * call.weight
            if own is given:
                return given + added
            return torch.cat([own + added, given[:, own.shape[1] :]], dim=1)

        return patch


def _own(given: Tensor, conditioned: Tensor) -> Tensor:
    """The tokens that are positions of the picture, before those that other controls make an attention see besides.

    Raises HostError where there are fewer.
    """
    if given.dim() != 3:
        return given
    positions = conditioned.shape[1]
    if given.shape[1] < positions:
        raise HostError(
            "a layer of the U-Net has not one token for each position, so that the control image does not fit",
            field="model",
            found=f"{given.shape[1]} tokens instead of {positions}",
            remedy="switch off what merges tokens (such as Token Merging), or disable the unit",
        )
    return given if given.shape[1] == positions else given[:, :positions]


def _sizes(weights: Weights) -> Sizes:
    """Raises ModelFileError for a file that is not whole, or has more in it."""
    strange = [key for key in weights if not key.startswith(PREFIX)]
    if strange:
        raise ModelFileError(
            "the ControlLLLite has more in it than its modules",
            field="model",
            found=f"{len(strange)} tensors not part of the network: {', '.join(strange[:4])}",
            remedy="download the file again, or choose another control model",
        )
    return lllite_sizes(weights)


def _made_for(sizes: Sizes) -> str:
    """By the widths of the layers, as far as they tell."""
    widths = {size.inputs for size in sizes.values()}
    deep = any(".transformer_blocks.1." in layer_of(place) for place in sizes)
    if widths <= set(_SDXL_WIDTHS) and deep:
        return "SDXL"
    if widths <= set(_SD_WIDTHS) and not deep:
        return "SD 1.x or 2.x"
    return f"a U-Net with layers of {', '.join(map(str, sorted(widths)))} channels"


def _disagreement(sizes: Sizes, base: UNetConfig) -> str:
    """Why the modules cannot act, "" where they can."""
    layers = layer_inputs(base)
    for place, size in sizes.items():
        name = layer_of(place.removeprefix(PREFIX))
        if name not in layers:
            return f"a module for {name}, which is none of the checkpoint's attentions and convolutions"
        if name.endswith(_OF_TEXT):
            return f"a module for {name}, which gets the prompt and no picture"
        theirs = layers[name]
        if (theirs.channels, theirs.conv) != (size.inputs, size.conv):
            kinds = {True: "features", False: "tokens"}
            wanted, has = f"{size.inputs} {kinds[size.conv]}", f"{theirs.channels} {kinds[theirs.conv]}"
            return f"{name} is to get {wanted}, the checkpoint's gets {has}"
    return ""
