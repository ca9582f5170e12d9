"""A contact sheet: pictures and their maps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from .sources import Task

CELL = 192
CAPTION = 14
COLUMNS = 4
MOST = 40


def contact_sheet(tasks: Sequence[Task], path: Path) -> bool:
    """Write a JPEG of the first maps that are there, each right of its picture; False where there is none to show."""
    shown = [task for task in tasks if not task.is_shard and task.target.suffix == ".png" and task.target.exists()]
    shown = shown[:MOST]
    if not shown:
        return False
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * 2 * CELL, rows * (CELL + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, task in enumerate(shown):
        left, top = place % COLUMNS * 2 * CELL, place // COLUMNS * (CELL + CAPTION)
        for offset, file in ((0, task.source), (CELL, task.target)):
            with Image.open(file) as opened:
                small = opened.convert("RGB")
            small.thumbnail((CELL - 4, CELL - 4))
            sheet.paste(small, (left + offset, top))
        draw.text((left, top + CELL - 2), task.name[-60:], fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "JPEG", quality=90)
    return True
