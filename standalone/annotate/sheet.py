"""A contact sheet: pictures and their maps side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .sources import Task

CELL = 192
CAPTION = 14
COLUMNS = 4
MOST = 40
FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKjp-Regular.otf",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "msgothic.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "seguisym.ttf",
)
"""Of Linux, macOS and Windows, looked for where the system keeps fonts: Pillow's own has the letters of the West."""


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
        caption, font = written(task.name[-60:])
        draw.text((left, top + CELL - 2), caption, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "JPEG", quality=90)
    return True


def written(text: str) -> tuple[str, Any]:
    """The text with a font that has all of its letters; where there is none, with their numbers for those it lacks."""
    for font in _fonts():
        if not _lacks(font, text):
            return text, font
    font = next(_fonts())
    missing = _lacks(font, text)
    return "".join(f"<U+{ord(letter):04X}>" if letter in missing else letter for letter in text), font


@cache
def _loaded(name: str) -> Any | None:
    try:
        return ImageFont.truetype(name, 11)
    except OSError:
        return None  # this system does not have it


def _fonts() -> Iterator[Any]:
    yield ImageFont.load_default()
    yield from (font for name in FONTS if (font := _loaded(name)) is not None)


def _lacks(font: Any, text: str) -> set[str]:
    """The letters that the font would show as the box for what it does not have."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        return {letter for letter in text if ord(letter) > 126}
    box = _drawn(font, "\uffff")
    return {letter for letter in set(text) if not letter.isspace() and _drawn(font, letter) == box}


def _drawn(font: Any, letter: str) -> bytes:
    """A letter as the font draws it."""
    picture = Image.new("L", (32, 32))
    ImageDraw.Draw(picture).text((2, 2), letter, fill=255, font=font)
    return picture.tobytes()
