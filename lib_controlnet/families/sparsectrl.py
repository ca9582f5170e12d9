"""SparseCtrl (arXiv 2311.16933) for SD 1.x, "RGB" and "scribble", for single pictures and the frames of a film."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import HostError
from ..core.frames import Film
from ..core.hints import Hint
from ..core.step import Step
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
        hint = settings.checkpoint().latents(hints) if self.net.latent else pixels
        where = torch.ones_like(hint[:, :1])
        if settings.film is not None:
            hint, where = _placed(hint, settings.film)
        return BoundSparse(self, torch.cat([hint, where], dim=1), settings)


def _placed(hint: Tensor, film: Film) -> tuple[Tensor, Tensor]:
    """Hints (n, C, h, w) at their frames of a film, nothing elsewhere: (F, C, h, w), and where they are (F, 1, h, w).

    One hint is the first frame's, several are those of all frames or of the key frames (the authors' pipeline).
    """
    keys = film.keys or (range(film.frames) if len(hint) > 1 else (0,))
    where = hint.new_zeros(film.frames, 1, *hint.shape[2:])
    where[list(keys)] = 1.0
    return hint.expand(film.frames, -1, -1, -1) * where, where


class BoundSparse(BoundControlNet[SparseControlNet]):
    """The network with one unit's hints, each with where it is to be followed as its last channel.

    Without a film each picture is one of a single frame.
    """

    def __init__(self, model: LoadedSparse, hint: Tensor, settings: UnitSettings) -> None:
        super().__init__(model, hint, pooled=False)
        self._net = model.net
        self._unit = settings.unit
        self._film = settings.film is not None
        self.piecewise = not model.net.latent and not self._film

    def _encoded_at(self, x: Tensor) -> Tensor:
        return self._net.encode_hint(self._hint.to(x) if self._net.latent else sized(self._hint, x))

    def _forward(self, step: Step) -> Callable[..., tuple[Tensor, ...]]:
        return partial(self._net, frames=self._frames(step) if self._film else 1)

    def _frames(self, step: Step) -> int:
        """How many rows of `step` are one film. Raises HostError where they are not films of the same frames."""
        frames = len(set(step.images))
        if step.images == step.images[:frames] * (step.batch // frames) and frames <= self._net.places:
            return frames
        raise HostError(
            "the U-Net was not called with whole films, or with longer ones than the control model knows",
            unit=self._unit,
            field="model",
            found=f"{step.batch} rows with the frames {', '.join(map(str, step.images))}",
            remedy=f"use windows of at most {self._net.places} frames, and no AND in the prompt",
        )
