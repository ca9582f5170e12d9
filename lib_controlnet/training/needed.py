"""What a training needs of this machine besides its data: told before anything is read."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

import numpy as np

from ..core.errors import PreprocessorError
from .cache import Preprocess
from .config import TrainConfig
from .errors import TrainingError
from .log import board_writer, wandb_package
from .optimizer import eight_bit

_BLANK = np.zeros((64, 64, 3), np.uint8)
_PACKAGES = ("accelerate", "diffusers")
"""WebUIs bring the first one, and not always the second."""


def check_needed(config: TrainConfig) -> None:
    """Raises TrainingError for a missing file or package."""
    for name, path in (("checkpoint", config.base.checkpoint), ("start", config.base.start), ("vae", config.base.vae)):
        if path is not None and not path.is_file():
            kind = "a folder" if path.is_dir() else "nothing"
            raise TrainingError(f"{name} must be a file", field=f"base.{name}", found=f"{kind} at {path}",
                                remedy="correct the path; relative ones start at the configuration")  # fmt: skip
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise TrainingError(f"the trainer needs the package {package}", field="train",
                                found=f"{sys.executable} has none",
                                remedy=f"{sys.executable} -m pip install {package}")  # fmt: skip
    if config.train.optimizer == "adamw8bit":
        eight_bit()
    if config.output.tensorboard:
        board_writer()
    if config.output.wandb != "off":
        wandb_package()


def check_names(config: TrainConfig, find: Callable[[str], object]) -> None:
    """Raises TrainingError, by its option, for a preprocessor that `find` does not know."""
    for field, name in (("data", config.data.preprocessor), ("samples", config.samples.preprocessor)):
        try:
            if name not in ("none", ""):
                find(name)
        except PreprocessorError as error:
            raise TrainingError(error.problem, field=f"{field}.preprocessor", found=error.found or name,
                                remedy=error.remedy) from error  # fmt: skip


def check_preprocessors(config: TrainConfig, preprocess: Preprocess, makes_maps: bool) -> None:
    """Runs those that will be run, on a blank picture. `makes_maps`: some pictures have none yet.

    Raises PreprocessorError where one is unknown or lacks its weights.
    """
    data, samples = config.data, config.samples
    wanted: dict[str, tuple[float, ...]] = {}
    if samples.every and samples.preprocessor:
        wanted[samples.preprocessor] = ()
    if makes_maps or samples.every:
        wanted[data.preprocessor] = data.preprocessor_params
    for name, settings in wanted.items():
        if name != "none":
            preprocess(name, _BLANK, len(_BLANK), settings)
