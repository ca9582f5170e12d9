"""The results of a batch on disk: each is there as soon as it is made."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADHERENCE = "adherence.csv"


@dataclass(frozen=True)
class _Saved:
    name: str
    pixels: bytes
    """The digest of the picture as it was saved."""


class BatchResults:
    """Saves under the names of the pictures' sources into `folder`; `names` has one for each turn."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        self._names = names
        self._copies: dict[int, int] = {}
        self._saved: list[_Saved] = []

    def add(self, p: Any, turn: int, picture: Any) -> None:
        """A picture (PIL) of the turn is ready, with the host's infotext for it."""
        self._save(turn, picture, _infotext(p))

    def finish(self, pictures: Sequence[Any], infotexts: Sequence[str], each: int) -> None:
        """All pictures of the job as the host gives them, `each` of a turn.

        Saves those that another script has changed since, and all where the host told of none.
        """
        if not self._saved:
            for number, picture in enumerate(pictures):
                self._save(number // max(each, 1), picture, infotexts[number] if number < len(infotexts) else None)
        elif len(self._saved) == len(pictures):  # else there are masks among them, which belong to no source
            for saved, picture, text in zip(self._saved, pictures, infotexts, strict=False):
                if _digest(picture) != saved.pixels:
                    self._write(saved.name, picture, text)

    def write_adherence(self, pictures: Sequence[Mapping[int, float | None]]) -> None:
        """`adherence.csv` beside the pictures, best first: how well each follows its units' maps, by unit."""
        if len(pictures) != len(self._saved):
            return  # somebody else made more of them, or fewer
        units = sorted({unit for picture in pictures for unit in picture})
        rows = [(saved.name, _mean(picture), picture) for saved, picture in zip(self._saved, pictures, strict=True)]
        rows.sort(key=lambda row: -1.0 if row[1] is None else row[1], reverse=True)
        with (self._folder / ADHERENCE).open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["picture", "adherence", *(f"unit {unit}" for unit in units)])
            for name, mean, picture in rows:
                table.writerow([name, _told(mean), *(_told(picture.get(unit)) for unit in units)])

    def _save(self, turn: int, picture: Any, infotext: str | None) -> None:
        copy = self._copies.get(turn, 0)
        self._copies[turn] = copy + 1
        name = self._names[turn] + (f"-{copy}" if copy else "")
        self._write(name, picture, infotext)
        self._saved.append(_Saved(name, _digest(picture)))

    def _write(self, name: str, picture: Any, infotext: str | None) -> None:
        from modules import images

        folder = str(self._folder)
        images.save_image(picture.convert("RGB"), folder, "", forced_filename=name, info=infotext, save_to_dirs=False)


def _mean(picture: Mapping[int, float | None]) -> float | None:
    values = [value for value in picture.values() if value is not None]
    return sum(values) / len(values) if values else None


def _told(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _infotext(p: Any) -> str:
    """What the host writes for the picture that it is about to finish."""
    from modules.processing import create_infotext

    place = {"index": p.batch_index, "all_negative_prompts": p.negative_prompts}
    return create_infotext(p, p.prompts, p.seeds, p.subseeds, **place)


def _digest(picture: Any) -> bytes:
    return hashlib.sha256(picture.convert("RGB").tobytes()).digest()
