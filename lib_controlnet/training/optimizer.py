"""The optimizer of a training, and which weights it moves how fast."""

from __future__ import annotations

import importlib
from fnmatch import fnmatchcase
from typing import Any

import torch

from .adafactor import Adafactor, step_in_backward
from .controlled import ControlledUNet
from .errors import TrainingError
from .kinds import Control
from .options import TrainOptions


def make_optimizer(model: ControlledUNet, options: TrainOptions) -> torch.optim.Optimizer:
    """AdamW over the weights of `model` that ask for a gradient; each group has its undiminished rate in `full_rate`.

    Raises TrainingError where 8-bit AdamW is asked for and bitsandbytes cannot be imported.
    """
    groups = _groups(model.control, options)
    decoder = list(model.decoder_parameters())
    if decoder:
        groups.append(_group(decoder, options.decoder_learning_rate))
    if options.optimizer == "adamw":
        return adamw(groups, options)
    if options.optimizer == "adafactor":
        made = Adafactor(groups, options.learning_rate, options.weight_decay, options.seed)
        if options.fused_backward:
            step_in_backward(made)
        return made
    return eight_bit()(groups, **_settings(options))


def adamw(weights: list[Any], options: TrainOptions) -> torch.optim.Optimizer:
    """AdamW over `weights` (or groups of them), in one kernel where PyTorch has it for their device: a seventh of the
    time of its loop on a processor."""
    settings = {"lr": options.learning_rate, **_settings(options)}
    try:
        return torch.optim.AdamW(weights, fused=True, **settings)
    except RuntimeError:  # on a processor before PyTorch 2.4
        return torch.optim.AdamW(weights, **settings)


def _settings(options: TrainOptions) -> dict[str, Any]:
    return {"betas": options.betas, "eps": options.epsilon, "weight_decay": options.weight_decay}


def _groups(control: Control, options: TrainOptions) -> list[dict[str, Any]]:
    """What is trained of the control: a group for each rate of its own, those without one first.

    Raises TrainingError for a pattern that no module has.
    """
    patterns = list(options.rates)
    parts: list[list[Any]] = [[] for _ in range(len(patterns) + 1)]
    named = control.named_trained()
    for name, weight in named:
        fitting = (place for place, pattern in enumerate(patterns, 1) if fnmatchcase(name, pattern))
        parts[next(fitting, 0)].append(weight)
    for place, pattern in enumerate(patterns, 1):
        if not parts[place]:
            raise TrainingError("no weight has the name of a module's learning rate", field=f'train.rates."{pattern}"',
                                found=f"names such as {', '.join(name for name, _ in named[:3])}",
                                remedy="correct or remove it; * stands for anything")  # fmt: skip
    rates = [options.learning_rate, *options.rates.values()]
    return [_group(part, rate) for part, rate in zip(parts, rates, strict=True) if part]


def _group(parameters: list[Any], rate: float) -> dict[str, Any]:
    return {"params": parameters, "lr": rate, "full_rate": rate}


def eight_bit() -> Any:
    """bitsandbytes' AdamW. Raises TrainingError where it cannot be imported."""
    try:
        return importlib.import_module("bitsandbytes").optim.AdamW8bit
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise TrainingError(
            "8-bit AdamW needs the package bitsandbytes, which cannot be used here",
            field="train.optimizer",
            found=f"{type(error).__name__}: {error}",
            remedy='install it with "pip install bitsandbytes", or set optimizer = "adamw"',
        ) from error
