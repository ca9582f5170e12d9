"""tile_colorfix: what is drawn keeps the colours of the unit's picture, while its details are free.

The formulas are sd-webui-controlnet's (scripts/hook.py, "Post-processing for color fix").
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..core.step import Pass, Step
from .base import Effect, Setup, of_rows
from .placed import Placed

IDS = ("tile_colorfix",)


class TileColorfix(Effect):
    """Low frequencies of x0 are replaced by the picture's; the "+sharp" one has uncond rows push away from blur."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._radius = int(setup.params[0]) * (2 if setup.pass_ is Pass.hires else 1)
        self._detail = 0.01 * setup.params[1] if len(setup.params) > 1 else 0.0
        self._colours = Placed(blurred(setup.latents().float(), self._radius))

    def after(self, step: Step, output: Tensor) -> Tensor:
        return self._setup.redrawn(step, output, lambda x0: self._coloured(step, x0))

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


EFFECT = TileColorfix
