"""T2I-Adapter (arXiv 2302.08453): full and light ones for SD 1.x and 2.x, full ones for SDXL, in either naming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ..core.hints import Hint
from ..core.residuals import Residuals
from ..core.step import Step
from ..loading.build import fill
from ..loading.detect import KeyCondition
from ..loading.lazy import outlines
from ..nets.config import UNetConfig
from ..nets.operations import Operations
from ..nets.residence import Residence
from ..nets.t2i_adapter import AdapterConfig, T2IAdapter, adapter_places
from .base import BaseModel, BoundControl, PlainModel, Runtime, Sheet, UnitSettings, Weights, check_base
from .coadapters import CoAdapter, Fusion, coadapter_of, met
from .hinted import joined

LUMA = (0.299, 0.587, 0.114)
"""ITU-R 601-2, by which PIL makes the one channel that adapters of lines were trained with."""
_RAMP = (0.25, 0.62, 0.825, 1.0)
"""Weights of "My prompt is more important", shallow to deep (sd-webui-controlnet, scripts/hook.py)."""


class T2IAdapterFamily:
    """Detects by the residual blocks, which lie under `body` and have no norm."""

    id = "t2i_adapter"
    shares: Mapping[str, float] = {}
    before: Sequence[str] = ()
    condition = KeyCondition(
        any_of=("body.0.in_conv.weight", "body.0.block1.weight"),
        none_of=("input_hint_block.0.weight", "style_embedding"),
    )

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedT2IAdapter:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        config = AdapterConfig.from_weights(outlines(weights))
        net = fill(
            lambda: T2IAdapter(config, Operations()),
            weights,
            dtype=runtime.dtype,
            device="cpu",
            name=path.name,
            layout=runtime.layout,
        )
        return LoadedT2IAdapter(path, net, runtime.device, coadapter_of(path, metadata))

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        del path
        config = AdapterConfig.from_weights(outlines(weights))
        return Sheet(len(config.channels), _made_for(config), lambda base: not _disagreement(config, base.config))


FAMILY = T2IAdapterFamily()


class LoadedT2IAdapter(PlainModel):
    """One adapter file's network."""

    def __init__(self, path: Path, net: T2IAdapter, device: torch.device, co: CoAdapter | None = None) -> None:
        """device: where it is to compute. co: what makes it one of several CoAdapters."""
        self.path = path
        self.net = net
        self.device = device
        self.co = co
        self.residence = Residence(net)
        self.outputs = len(net.config.channels)
        self.ramp = _RAMP[-self.outputs :]

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where `base` has not the blocks to which the features are added."""
        check_base(self.path, base, _made_for(self.net.config), _disagreement(self.net.config, base.config))

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundT2IAdapter:
        """The network with hints `(1, 3, H, W)` of one size: one, or one for each image of the batch."""
        hint = joined(hints, len(LUMA), settings, self.path)
        if self.net.config.hint_channels == 1:
            hint = (hint * hint.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
        places = adapter_places(settings.base.config, self.net.config.unshuffle)
        return BoundT2IAdapter(self, hint, settings.weight, places)


class BoundT2IAdapter(BoundControl):
    """An adapter with one unit's hints; the network runs once a size, not once a step."""

    piecewise = True

    def __init__(self, model: LoadedT2IAdapter, hint: Tensor, weight: float, places: Sequence[int]) -> None:
        """places: blocks of the U-Net, counted through encoder and middle, that get a feature."""
        self._model = model
        self._places = places
        self._hint = hint
        self._weight = weight
        self._features: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        self.fusion: Fusion | None = None
        self._agreed: dict[tuple[int, ...], Sequence[Tensor]] = {}

    @property
    def co(self) -> CoAdapter | None:
        """What makes it one of several CoAdapters."""
        return self._model.co

    def meet(self, others: Sequence[BoundControl]) -> None:
        """Finds the other CoAdapters."""
        met(self, others)

    def summary(self, step: Step) -> Sequence[Tensor]:
        """The means over positions (n, C) of its features, as far as the weight lets them act."""
        if not self._features:  # another CoAdapter asks before it is this one's turn
            self._model.residence.come(self._model.device)
        return [part.float().mean(dim=(2, 3)) * self._weight for part in self._features_at(step.x)]

    def residuals(self, step: Step) -> Residuals:
        """Residuals of the rows of `step`: the same at every timestep and for every prompt."""
        features = [_of_rows(part, step) for part in self._fused(step)]
        if self._model.net.config.unshuffle == 16:
            return Residuals(encoder=_placed(features[:-1], self._places[:-1]), middle=features[-1])
        return Residuals(encoder=_placed(features, self._places))

    def _fused(self, step: Step) -> Sequence[Tensor]:
        """Its features, each channel as much as the CoAdapters agreed on."""
        if self.fusion is None:
            return self._features_at(step.x)
        size = tuple(step.x.shape[2:])
        if size not in self._agreed:
            pairs = zip(self._features_at(step.x), self.fusion.factors(self, step), strict=True)
            self._agreed = {size: [part * factor.to(part)[:, :, None, None] for part, factor in pairs]}
        return self._agreed[size]

    def _features_at(self, x: Tensor) -> tuple[Tensor, ...]:
        height, width = x.shape[2:]
        if (height, width) not in self._features:
            net = self._model.net
            hint = self._hint.to(self._model.residence.place, next(net.parameters()).dtype)
            size = tuple(_rounded_up(side * 8, net.config.unshuffle) for side in (height, width))
            if hint.shape[2:] != size:
                hint = functional.interpolate(hint, size, mode="bilinear", align_corners=False)
            self._features = {(height, width): net(hint)}
        return self._features[height, width]


def _rounded_up(pixels: int, unit: int) -> int:
    return -(-pixels // unit) * unit


def _of_rows(part: Tensor, step: Step) -> Tensor:
    """(n, C, h, w), one a picture or one for all -> (B, C, h, w)."""
    if part.shape[0] == 1:
        return part.expand(step.batch, -1, -1, -1)
    return step.kept.of(part, [image % part.shape[0] for image in step.images])


def _placed(features: Sequence[Tensor], places: Sequence[int]) -> tuple[Tensor | None, ...]:
    at = dict(zip(places, features, strict=True))
    return tuple(at.get(index) for index in range(places[-1] + 1))


def _made_for(config: AdapterConfig) -> str:
    return "SDXL" if config.unshuffle == 16 else "SD 1.x"


def _disagreement(config: AdapterConfig, base: UNetConfig) -> str:
    """Why the features cannot be added, "" where they can."""
    places = adapter_places(base, config.unshuffle)
    if len(places) != len(config.channels):
        return f"{len(config.channels)} features, {len(places)} places for them in the checkpoint"
    channels = (*base.input_channels, base.middle_channels)
    theirs, mine = [channels[place] for place in places], list(config.channels)
    if mine != theirs:
        return f"features {mine}, the checkpoint's {theirs}"
    deep = config.unshuffle == 16 and base.transformer_depth[0]
    return "features that begin at half of the size, the checkpoint's first level has attention" if deep else ""
