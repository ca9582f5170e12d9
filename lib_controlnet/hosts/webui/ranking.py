"""Adherence as a result of the host's X/Y/Z plot: the axis has its cells measured, captioned and ranked."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import cv2
import numpy as np
from PIL import Image

from .metering import MEASURED

LABEL = "[ControlNet] adherence"
ALL = "all units"
_WRAPPED = "controlnet_ranks"
_STRIP = 0.08
"""Of a cell's height, its caption."""

Place = tuple[int, int, int]


class Ranking:
    """What the axis was asked for in the grid that is drawn."""

    def __init__(self) -> None:
        self._asked: str | None = None

    def axis(self, grid: Any, units: int) -> Any:
        """The axis; `grid` is the host's module."""
        words = [ALL, *(f"unit {unit}" for unit in range(units))]
        return grid.AxisOption(LABEL, str, self._apply, choices=lambda: words)

    def wrap(self, grid: Any) -> None:
        """Lets the host's grids be captioned where the axis is on; twice is once."""
        original = getattr(grid, "draw_xyz_grid", None)
        if original is None or hasattr(original, _WRAPPED):
            return

        @functools.wraps(original)
        def draw(*args: Any, **kwargs: Any) -> Any:
            return self._draw(original, *args, **kwargs)

        setattr(draw, _WRAPPED, original)
        grid.draw_xyz_grid = draw

    def _apply(self, p: Any, value: Any, _values: Any) -> None:
        self._asked = str(value)
        setattr(p, MEASURED, True)

    def _draw(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Draws the grid; where the axis was on, once more with captions, of the cells that are there already."""
        self._asked = None
        bound = inspect.signature(original).bind(*args, **kwargs)
        cell: Callable[..., Any] = bound.arguments["cell"]
        made: dict[Place, Any] = {}
        asked: dict[Place, str] = {}

        def keeping(x: Any, y: Any, z: Any, ix: int, iy: int, iz: int) -> Any:
            made[ix, iy, iz] = cell(x, y, z, ix, iy, iz)
            if self._asked is not None:
                asked[ix, iy, iz] = self._asked
            return made[ix, iy, iz]

        bound.arguments["cell"] = keeping
        result = original(*bound.args, **bound.kwargs)
        found = {
            place: value for place, unit in asked.items() if (value := adherence_of(made[place], unit)) is not None
        }
        if not found:
            return result
        ranks = ranked(found)
        labels: Mapping[str, Sequence[str]] = {axis: bound.arguments[f"{axis}_labels"] for axis in ("x", "y", "z")}

        def again(_x: Any, _y: Any, _z: Any, ix: int, iy: int, iz: int) -> Any:
            return _captioned(made[ix, iy, iz], (ix, iy, iz), found, ranks)

        bound.arguments["cell"] = again
        shown = original(*bound.args, **bound.kwargs)
        best = next(place for place, rank in ranks.items() if rank == 1)
        names = (labels[axis][at] for axis, at in zip(("x", "y", "z"), best, strict=True))
        where = ", ".join(name for name in names if name)
        line = (
            f"ControlNet: the picture that follows best has adherence {found[best]:.3f} ({where or 'the only one'})\n"
        )
        shown.comments = f"{getattr(shown, 'comments', '') or ''}{line}"
        return shown


def adherence_of(processed: Any, asked: str) -> float | None:
    """What the meter says of a job's units, or of the one that is asked for; None where it says nothing."""
    units = json.loads(processed.js()).get("controlnet", []) if processed.images else []
    values = [
        float(unit["adherence"])
        for unit in units
        if unit.get("adherence") is not None and asked in (ALL, f"unit {unit['unit']}")
    ]
    return float(np.mean(values)) if values else None


def ranked(found: Mapping[Place, float]) -> dict[Place, int]:
    """1 for the best; equals share a rank."""
    return {place: 1 + sum(other > value for other in found.values()) for place, value in found.items()}


def _captioned(processed: Any, place: Place, found: Mapping[Place, float], ranks: Mapping[Place, int]) -> Any:
    if place not in found or not processed.images:
        return processed
    shown = copy(processed)
    text = f"{found[place]:.3f}  no. {ranks[place]} of {len(ranks)}"
    shown.images = [caption(processed.images[0], text, ranks[place] == 1), *processed.images[1:]]
    return shown


def caption(picture: Image.Image, text: str, best: bool) -> Image.Image:
    """A copy of `picture` with `text` in a strip at its lower edge, green for the best."""
    pixels = np.ascontiguousarray(np.asarray(picture.convert("RGB"), np.uint8).copy())
    height, width = pixels.shape[:2]
    strip = max(12, round(height * _STRIP))
    pixels[height - strip :] = (20, 110, 60) if best else (30, 30, 30)
    (across, down), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.7 * strip / down, 0.95 * width / across)
    at = (max(2, round((width - across * scale) / 2)), height - round((strip - down * scale) / 2))
    cv2.putText(pixels, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), max(1, round(scale)), cv2.LINE_AA)
    return Image.fromarray(pixels)
