"""The pictures that were measured last, with where they follow their maps, for the page to show."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

from ..core.images import Pixels
from ..measure.score import Field

MOST_PICTURES = 8
"""Of one job that are kept."""
_MOST = 16


class MeasuredMaps:
    """By a number that the user is told; the oldest are let go of."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Mapping[int, tuple[Pixels, Field]]] = OrderedDict()
        self._lock = Lock()
        self._last = 0

    def keep(self, maps: Mapping[int, tuple[Pixels, Field]]) -> int:
        """Place in the gallery -> picture (H, W, 3) and where it follows (h, w), of a unit of a job."""
        with self._lock:
            self._last += 1
            self._kept[self._last] = maps
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
            return self._last

    def find(self, number: int, shown: int) -> tuple[Pixels, Field] | None:
        """Of the picture at place `shown` of the gallery, of the first where that is none; None for what is gone."""
        with self._lock:
            maps = self._kept.get(number, {})
        return maps.get(shown, next(iter(maps.values()), None))
