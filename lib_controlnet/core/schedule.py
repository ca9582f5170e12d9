"""When a unit acts (guidance range) and how strongly: at each step (weight curve), in each layer (layer weights)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .errors import UnitError
from .modes import ControlMode

SOFT_DECAY = 0.825
"""Ratio between neighbouring layers of the soft ramp (the ControlNet repository's "guess mode")."""

_SD1_OUTPUTS = 13


@dataclass(frozen=True)
class GuidanceRange:
    """The part of sampling in which a unit acts, both ends included (sd-webui-controlnet's convention).

    `progress` is denoiser calls done / denoiser calls planned: 0 at the first call, always below 1 with fixed-step
    samplers; adaptive samplers can pass their plan, which counts as 1.
    """

    start: float = 0.0
    end: float = 1.0

    def contains(self, progress: float) -> bool:
        """True where a unit acts at `progress` 0..1."""
        return self.start <= min(progress, 1.0) <= self.end


@dataclass(frozen=True)
class WeightCurve:
    """A weight over a pass: straight lines between points (progress 0..1, weight), level before and after them.

    `points`: one or more, in the order of their progress. Of two at the same progress the second counts there: a jump.
    """

    points: tuple[tuple[float, float], ...]

    def at(self, progress: float) -> float:
        """The weight at `progress`; past a sampler's plan it stays what it is at 1."""
        progress = min(progress, 1.0)
        before = [point for point in self.points if point[0] <= progress]
        if not before:
            return self.points[0][1]
        start, low = before[-1]
        if len(before) == len(self.points):
            return low
        end, high = self.points[len(before)]
        # Between equal weights to the bit that weight, whatever the progress.
        return low + (high - low) * ((progress - start) / (end - start))

    @property
    def peak(self) -> float:
        """The largest weight; 0 where there is nothing but zeros."""
        return max(weight for _, weight in self.points)

    @property
    def level(self) -> bool:
        """It is the same everywhere."""
        return len({weight for _, weight in self.points}) == 1

    @property
    def end(self) -> float:
        """From this progress on it is 0; 1 where that never comes."""
        loud = [number for number, (_, weight) in enumerate(self.points) if weight]
        if not loud:
            return 0.0
        return 1.0 if loud[-1] == len(self.points) - 1 else self.points[loud[-1] + 1][0]

    def changed(self, change: Callable[[float], float]) -> WeightCurve:
        """The curve whose weights are `change(weight)`."""
        return replace(self, points=tuple((progress, change(weight)) for progress, weight in self.points))

    def __str__(self) -> str:
        return "/".join(f"{progress:g}={weight:g}" for progress, weight in self.points)


def soft_ramp(outputs: int) -> tuple[float, ...]:
    """Weights of "My prompt is more important": the deeper the layer, the stronger; the last (middle) is 1.

    `outputs` counts the residuals with the middle one: 13 for SD1 and SD2, 10 for SDXL.
    """
    return tuple(SOFT_DECAY ** (outputs - 1 - i) for i in range(outputs))


def legacy_soft_ramp(outputs: int) -> tuple[float, ...]:
    """The ramp of sd-webui-controlnet and Forge: SD1's 13 weights cut after `outputs`, so SDXL's middle gets 0.56."""
    return tuple(SOFT_DECAY ** (_SD1_OUTPUTS - 1 - i) for i in range(outputs))


def layer_weights(
    outputs: int,
    weight: float,
    mode: ControlMode,
    *,
    custom: Sequence[float] | None = None,
    force_soft: bool = False,
    legacy_ramp: bool = False,
    ramp: Sequence[float] = (),
) -> tuple[float, ...]:
    """The factor of every output of a control model.

    `ramp`: the model's own weights of "My prompt is more important", where it has such.
    `custom` (the unit's advanced weighting) replaces weight and ramp; it must have one entry an output.
    Raises UnitError when its length is wrong.
    """
    if custom is not None:
        if len(custom) != outputs:
            raise UnitError(
                "the list of layer weights does not fit the control model",
                field="advanced_weighting",
                found=f"{len(custom)} weights for {outputs} layers",
                remedy=f"give {outputs} numbers (encoder layers in order, then the middle) or none",
            )
        return tuple(float(w) for w in custom)
    if not (mode.soft or force_soft):
        return (weight,) * outputs
    if not ramp:
        ramp = legacy_soft_ramp(outputs) if legacy_ramp else soft_ramp(outputs)
    return tuple(weight * factor for factor in ramp)
