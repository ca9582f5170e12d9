"""tile_colorfix: what is drawn keeps the colours of the unit's picture, while its details are free.

The formulas are sd-webui-controlnet's (scripts/hook.py, "Post-processing for color fix").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..core.checkpoint import of_rows
from ..core.hints import Hint
from ..core.placed import Placed
from ..core.step import Pass, Step
from .base import BoundControl, OwnControl, UnitSettings


class TileColorfix(BoundControl):
    """Low frequencies of x0 are replaced by the picture's; the "+sharp" one has uncond rows push away from blur."""

    obeys_mode = False

    def __init__(self, hints: Sequence[Hint], settings: UnitSettings) -> None:
        self._checkpoint = settings.checkpoint()
        self._radius = int(settings.params[0]) * (2 if settings.pass_ is Pass.hires else 1)
        self._detail = 0.01 * settings.params[1] if len(settings.params) > 1 else 0.0
        self._colours = Placed(blurred(self._checkpoint.latents(hints).float(), self._radius))

    def predicted(self, step: Step, output: Tensor) -> Tensor:
        return self._checkpoint.redrawn(step, output, lambda x0: self._coloured(step, x0))

    def _coloured(self, step: Step, x0: Tensor) -> Tensor:
        x0 = x0 - blurred(x0, self._radius) + of_rows(self._colours.like(x0), step)
        if self._detail:
            unconds = step.kept.flags([not cond for cond in step.is_cond], x0.device)[:, None, None, None]
            dull = self._detail * blurred(x0, self._radius) + (1.0 - self._detail) * x0
            x0 = torch.where(unconds, dull, x0)
        return x0


def blurred(x: Tensor, radius: int) -> Tensor:
    """Mean over squares of 2 * radius + 1, the borders repeated."""
    padded = functional.pad(x, (radius,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, 2 * radius + 1, stride=1)


EFFECT = OwnControl("tile_colorfix", TileColorfix)
