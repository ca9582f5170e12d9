"""The maps of a unit as one tensor, for control models that take maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import ModelFileError, PreprocessorError
from ..core.hints import Hint
from .base import UnitSettings


def joined(hints: Sequence[Hint], channels: int, settings: UnitSettings, path: Path) -> Tensor:
    """(n, `channels`, H, W), one a hint.

    Raises PreprocessorError where the preprocessor gives embeddings, ModelFileError for another number of channels.
    """
    if not hints:
        raise PreprocessorError(
            f'"{path.name}" takes a control map, and the preprocessor makes an embedding',
            unit=settings.unit,
            field="module",
            remedy="choose another preprocessor for this control model",
        )
    hint = torch.cat([hint.image for hint in hints])
    if hint.shape[1] != channels:
        raise ModelFileError(
            f'"{path.name}" takes a control image of {channels} channels',
            unit=settings.unit,
            field="model",
            found=f"{hint.shape[1]} channels",
            remedy="use a preprocessor made for this model",
        )
    return hint
