"""A job's pictures in the order of how well they follow their maps, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .metering import JobMeter
from .notes import say_late

_LISTS = ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds")


def sort_best_first(p: Any, processed: Any, meter: JobMeter | None) -> None:
    """Reorders the result's pictures with what belongs to each, before anything is appended to them.

    Files that are saved already keep their names, and a grid that the host has made keeps its order.
    """
    if meter is None or not meter.services.setting("controlnet_measure_sort", False) or len(meter.pictures) < 2:
        return
    first, count = int(processed.index_of_first_image), len(meter.pictures)
    if len(processed.images) - first != count or len(processed.infotexts) - first != count:
        say_late(p, processed, "the pictures are not sorted by adherence: others stand among them")
        return
    values = [-1.0 if mean is None else mean for mean in meter.means()]
    order = sorted(range(count), key=lambda place: -values[place])
    for name in ("images", "infotexts"):
        listed = getattr(processed, name)
        setattr(processed, name, [*listed[:first], *_ordered(listed[first:], order)])
    for name in _LISTS:
        listed = getattr(processed, name, None)
        if isinstance(listed, list) and len(listed) == count:
            setattr(processed, name, _ordered(listed, order))
    meter.reorder(order)


def _ordered(listed: Sequence[Any], order: Sequence[int]) -> list[Any]:
    return [listed[place] for place in order]
