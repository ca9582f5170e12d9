"""A drawing of adherence, and of similarity to the prompt, against weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..core.images import Pixels

SIZE = (480, 320)
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 34, 450, 284
_GREEN, _BLUE, _GREY, _INK = (20, 140, 70), (50, 90, 200), (205, 205, 205), (30, 30, 30)


def curve_picture(
    curve: Sequence[tuple[float, float]],
    target: float | None,
    chosen: float,
    similarities: Sequence[tuple[float, float]] = (),
    title: str = "",
) -> Pixels:
    """(320, 480, 3) uint8: `curve` and `similarities` are (weight, value in 0..1), by weight; `chosen` is a weight."""
    image = Image.new("RGB", SIZE, "white")
    draw: Any = ImageDraw.Draw(image)
    widest = max([1.0, *(weight for weight, _ in curve)])

    def at(weight: float, value: float) -> tuple[float, float]:
        return _LEFT + (_RIGHT - _LEFT) * weight / widest, _BOTTOM - (_BOTTOM - _TOP) * min(max(value, 0.0), 1.0)

    for tenth in range(0, 11, 2):
        height = at(0, tenth / 10)[1]
        draw.line([(_LEFT, height), (_RIGHT, height)], fill=_GREY)
        draw.text((12, height - 6), f"{tenth / 10:.1f}", fill=_INK)
        draw.text((at(widest * tenth / 10, 0)[0] - 8, _BOTTOM + 6), f"{widest * tenth / 10:.1f}", fill=_INK)
    draw.text((_LEFT, 8), title, fill=_INK)
    draw.text((_LEFT, _BOTTOM + 20), "weight", fill=_INK)
    draw.text((_LEFT + 80, _BOTTOM + 20), "adherence", fill=_GREEN)
    if similarities:
        draw.text((_LEFT + 180, _BOTTOM + 20), "similarity to the prompt (CLIP)", fill=_BLUE)
    if target is not None:
        _dashes(draw, at(0, target), at(widest, target))
    for points, colour in ((similarities, _BLUE), (curve, _GREEN)):
        places = [at(*point) for point in points]
        if len(places) > 1:
            draw.line(places, fill=colour, width=2)
        for x, y in places:
            draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)
    x = at(chosen, 0)[0]
    draw.line([(x, _TOP), (x, _BOTTOM)], fill=_INK)
    return np.asarray(image, np.uint8)


def _dashes(draw: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    for x in range(int(start[0]), int(end[0]), 10):
        draw.line([(x, start[1]), (x + 5, end[1])], fill=_INK)
