"""The place of a control model in a unit whose preprocessor alone acts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ..core.hints import Hint
from ..core.residuals import Residuals
from ..core.step import Step
from ..families.base import BaseModel, BindOptions
from ..nets.residence import Residence


class NoModel:
    """Fits every checkpoint and adds nothing; it is also what it binds to."""

    path = Path("None")
    outputs = 0
    ramp: Sequence[float] = ()
    holds_base = False
    from_fp8 = False
    pooled = False

    def __init__(self) -> None:
        self.residence = Residence(nn.Module())

    def check(self, base: BaseModel) -> None:
        del base

    def bind(self, hints: Sequence[Hint], options: BindOptions) -> NoModel:
        del hints, options
        return self

    def control(self, step: Step) -> Residuals:
        del step
        return Residuals()
