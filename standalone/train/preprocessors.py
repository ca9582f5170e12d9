"""The preprocessors of this repository, as the trainer runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from annotator.sd_controlnet import registry
from annotator.sd_controlnet.spec import Runtime
from lib_controlnet.engine.preprocess import PreprocessRunner
from lib_controlnet.measure.metrics import kind_of
from lib_controlnet.training.pictures import Pixels


class Preprocessors:
    """Runs the preprocessors of this repository by name: see `Preprocess` in the trainer."""

    def __init__(self, weights: Sequence[Path]) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        runtime = Runtime(device=device, weight_folders=tuple(weights))
        self._runner = PreprocessRunner(registry.discover(), lambda: runtime, limit=0, stays=True)  # type: ignore[arg-type]

    def kind(self, name: str) -> str:
        """What the maps of a preprocessor show, as a meter compares them."""
        return kind_of(self._runner.entry(name).spec)

    def __call__(self, name: str, picture: Pixels, resolution: int, settings: Sequence[float]) -> Pixels:
        thresholds = dict(zip(("threshold_a", "threshold_b"), settings, strict=False))
        return self._runner.run(name, picture, resolution=resolution, **thresholds).map  # type: ignore[arg-type]
