"""The effects of a generation's units in one pass, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core.schedule import GuidanceRange
from ..core.step import Step
from .base import Effect
from .placed import Placed


class RunningEffects:
    """Each acts in its unit's guidance range; what happens to noise and finished pictures knows no range."""

    def __init__(self, effects: Sequence[tuple[GuidanceRange, Effect]] = ()) -> None:
        self._effects = effects
        self._told: dict[tuple[int, ...], Placed] = {}
        """The sums of the vectors of effects that act together, by their places."""

    def attach(self, unet: nn.Module) -> list[RemovableHandle]:
        """Puts their hooks on layers of `unet`."""
        return [handle for _, effect in self._effects for handle in effect.attach(unet)]

    def noise(self, noise: Tensor) -> Tensor:
        """The noise (B, 4, h, w) from which the pass starts."""
        for _, effect in self._effects:
            noise = effect.noise(noise)
        return noise

    def conditioned(self, step: Step) -> Step:
        """The step with the text and vector that its U-Net call is to get."""
        telling = {
            place: effect
            for place, (guidance, effect) in enumerate(self._effects)
            if guidance.contains(step.progress) and effect.vector() is not None
        }
        if not telling or step.y is None:
            return step
        y = step.y.clone()
        told = self._sum(tuple(telling)).like(y)
        is_cond = step.kept.flags(step.is_cond, y.device)[:, None]
        y[:, : told.shape[1]] = torch.where(is_cond, told, torch.zeros_like(told))
        ignored = any(effect.ignores_prompt for effect in self._acting(step))
        return replace(step, y=y, context=torch.zeros_like(step.context) if ignored else step.context)

    def _sum(self, places: tuple[int, ...]) -> Placed:
        if places not in self._told:
            vectors = [vector for place in places if (vector := self._effects[place][1].vector()) is not None]
            self._told[places] = Placed(sum(vectors[1:], vectors[0]))
        return self._told[places]

    def before(self, unet: nn.Module, step: Step) -> None:
        """A U-Net call begins."""
        acting = self._acting(step)
        for effect in acting:
            effect.prepare(unet, step)
        for effect in acting:
            effect.before()

    def after(self, step: Step, output: Tensor) -> Tensor:
        """The prediction (B, 4, h, w) of that call, for the host."""
        for effect in self._acting(step):
            output = effect.after(step, output)
        return output

    def finished(self, picture: Tensor, place: int) -> Tensor:
        """A decoded picture (3, H, W) in 0..1, for the host. Pictures of another size than the pass's make it fail."""
        for _, effect in self._effects:
            picture = effect.finished(picture, place)
        return picture

    def _acting(self, step: Step) -> list[Effect]:
        return [effect for guidance, effect in self._effects if guidance.contains(step.progress)]
