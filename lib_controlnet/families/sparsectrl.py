"""SparseCtrl (arXiv 2311.16933) for SD 1.x, "RGB" and "scribble", for single pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..core.hints import Hint
from ..loading.build import fill
from ..loading.detect import KeyCondition
from ..loading.lazy import outlines
from ..loading.sparse import sparse_names
from ..nets.operations import Operations
from ..nets.sparsectrl import SparseConfig, SparseControlNet
from .base import Runtime, Sheet, UnitSettings, Weights
from .controlnet import BoundControlNet, LoadedControlNet, Reading, sheet_of, sized
from .hinted import joined


class SparseCtrlFamily:
    """Detects by the layers over time beside a ControlNet's keys."""

    id = "sparsectrl"
    shares: Mapping[str, float] = {"SD 1.x": 0.443}
    before: Sequence[str] = ("controlnet",)
    condition = KeyCondition(
        all_of=("zero_convs.0.0.weight", "down_blocks.0.motion_modules.0.*"), any_of=("input_hint_block.0.*",)
    )

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedSparse:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        del metadata
        weights = sparse_names(weights)
        config = SparseConfig.from_weights(outlines(weights))
        net = fill(
            lambda: SparseControlNet(config, Operations()),
            weights,
            dtype=runtime.dtype,
            device="cpu",
            name=path.name,
            layout=runtime.layout,
        )
        return LoadedSparse(path, net, config.control, Reading(pooled=False), holds_base=False)

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        del path
        return sheet_of(SparseConfig.from_weights(outlines(sparse_names(weights))).control.unet)


FAMILY = SparseCtrlFamily()


class LoadedSparse(LoadedControlNet[SparseControlNet]):
    """One file's network."""

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundSparse:
        """The network with hints (1, 3, H, W) of one size: one, or one for each image of the batch."""
        pixels = joined(hints, 3, settings, self.path).clamp(min=0.0)
        if self.net.latent:
            return BoundSparse(self, settings.checkpoint().latents(hints), pooled=False)
        return BoundSparse(self, pixels, pooled=False)


class BoundSparse(BoundControlNet[SparseControlNet]):
    """The network with one unit's hints, to be followed in each picture, which is a film of one frame."""

    def __init__(self, model: LoadedSparse, hint: Tensor, *, pooled: bool) -> None:
        super().__init__(model, hint, pooled=pooled)
        self._net = model.net
        self.piecewise = not model.net.latent

    def _encoded_at(self, x: Tensor) -> Tensor:
        hint = self._hint.to(x) if self._net.latent else sized(self._hint, x)
        return self._net.encode_hint(torch.cat([hint, torch.ones_like(hint[:, :1])], dim=1))
