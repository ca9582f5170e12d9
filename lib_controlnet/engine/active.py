"""A control that has a say in the U-Net call under way."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ..families.base import BoundControl
from .generation import UnitRun
from .parts import Part, PartCall


@dataclass(frozen=True, eq=False)
class Active:
    """One control of a unit with what it may act on in a U-Net call."""

    run: UnitRun
    part: Part
    call: PartCall
    along: tuple[UnitRun, ...] = ()
    """Units whose control is computed with this one's."""
    origin: Hashable = None
    """Of a control that was made of several: which ones, and how strong each is in it."""

    @property
    def bound(self) -> BoundControl:
        """What acts."""
        return self.part.bound
