"""One strength for each control type, over the exact weight and range: how they go together as a control is weakened.

A weaker line map should act for fewer steps as well as with less weight, or the picture stays a tracing that is merely
pale; a mask or a picture that is a prompt must act to the end, or what it holds comes undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .control_types import ALL


@dataclass(frozen=True)
class Strength:
    """At strength s (0 to 1) the weight is s ** power, and the control ends at shortest + (1 - shortest) * s."""

    power: float
    shortest: float

    def weight(self, strength: float) -> float:
        """The control weight, 0 to 1."""
        return strength**self.power

    def end(self, strength: float) -> float:
        """The ending control step, 0 to 1."""
        return self.shortest + (1 - self.shortest) * strength


WHOLE = Strength(1.0, 1.0)
"""Weight alone: for what must act in every step."""
_EDGES, _LOOSE, _SPACE = Strength(0.5, 0.3), Strength(0.5, 0.2), Strength(0.6, 0.4)

STRENGTHS: Mapping[str, Strength] = {
    ALL: WHOLE,
    "Canny": _EDGES,
    "Lineart": _EDGES,
    "MLSD": _EDGES,
    "Scribble": _LOOSE,
    "SoftEdge": _LOOSE,
    "Depth": _SPACE,
    "NormalMap": _SPACE,
    "OpenPose": _SPACE,
    "Segmentation": _SPACE,
}
"""The types in which the range follows; all others are `WHOLE`."""


def as_numbers() -> dict[str, tuple[float, float]]:
    """(power, shortest) by type, for the page's script."""
    return {name: (strength.power, strength.shortest) for name, strength in STRENGTHS.items()}
