"""The pictures that were measured last, with where they follow their maps, for the page to show."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from ..core.images import Pixels
from ..measure.score import Field

MOST_PICTURES = 8
"""Of one unit of one job."""
_MOST = 16


class MeasuredMaps:
    """By a number that the user is told; the oldest are let go of."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[int, Sequence[tuple[Pixels, Field]]]] = OrderedDict()
        self._lock = Lock()
        self._last = 0

    def keep(self, maps: Sequence[tuple[Pixels, Field]], first: int) -> int:
        """(picture (H, W, 3), where it follows (h, w)) of a job, which begin at place `first` of its gallery."""
        with self._lock:
            self._last += 1
            self._kept[self._last] = (first, maps[:MOST_PICTURES])
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
            return self._last

    def find(self, number: int, shown: int) -> tuple[Pixels, Field] | None:
        """Of the picture at place `shown` of the gallery, of the first where that is none; None for what is gone."""
        with self._lock:
            first, maps = self._kept.get(number, (0, ()))
        if not maps:
            return None
        place = shown - first
        return maps[place] if 0 <= place < len(maps) else maps[0]
