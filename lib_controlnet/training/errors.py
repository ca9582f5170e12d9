"""What the user is told when a training cannot start or go on."""

from __future__ import annotations

from ..core.errors import ControlNetError


class TrainingError(ControlNetError):
    """A setting, the data, the disk or the numbers stand in the way of a training."""


class NotFinite(TrainingError):
    """The loss is no number any more; the weights are those from before that step."""


class Stopped(Exception):
    """Whoever looks on wants the training to end now; all that was made is kept."""
