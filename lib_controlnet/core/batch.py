"""Units with many pictures: those of a batch taken one by one, those to be merged taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from .errors import UnitError
from .images import FORMATS, Pixels, read_rgb
from .modes import InputMode
from .units import ControlNetUnit, Source

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))


@dataclass(frozen=True)
class Turn:
    """One generation of a batch: its units, and the name that its results are saved under."""

    units: tuple[ControlNetUnit, ...]
    name: str


class Batch:
    """The units of a job of which at least one has a picture for each generation.

    As long as the shortest of its lists; units that are not in batch mode act alike in every turn. Files are read in
    their turn.
    """

    def __init__(self, units: Sequence[ControlNetUnit]) -> None:
        self._units = tuple(units)
        self._sources = {unit.index: _sources(unit) for unit in units if is_batch(unit)}
        self.length = min(len(sources) for sources in self._sources.values())

    @property
    def output_dir(self) -> str:
        """Where the results are to be saved under their sources' names; "" where the host saves them."""
        return next((unit.output_dir for unit in self._units if is_batch(unit) and unit.output_dir), "")

    def turn(self, number: int, last: Pixels | None = None) -> Turn:
        """The units of generation `number`; those that loop work on `last`, the result before, if there is one."""
        first = next(iter(self._sources.values()))[number]
        name = first.stem if isinstance(first, Path) else f"{number:05d}"
        return Turn(tuple(self._at(unit, number, last) for unit in self._units), name)

    def _at(self, unit: ControlNetUnit, number: int, last: Pixels | None) -> ControlNetUnit:
        if unit.index not in self._sources:
            return unit
        source = self._sources[unit.index][number]
        picture = last if unit.loopback and last is not None else read_source(source, unit.index)
        return replace(unit, image=picture, mask=None, input_mode=InputMode.simple, images=(), batch_dir="")


def is_batch(unit: ControlNetUnit) -> bool:
    """Whether the unit wants a generation for each of its pictures."""
    return unit.enabled and unit.input_mode is InputMode.batch


def parted(unit: ControlNetUnit) -> list[ControlNetUnit]:
    """A unit that merges pictures as one unit for each, its weights divided by their number; any other as it is."""
    if unit.input_mode is not InputMode.merge:
        return [unit]
    count = len(unit.images)
    layers = None if unit.layer_weights is None else tuple(weight / count for weight in unit.layer_weights)
    common = {"mask": None, "input_mode": InputMode.simple, "images": (), "layer_weights": layers}
    return [
        replace(unit, image=read_source(source, unit.index), weight=unit.weight / count, **common)
        for source in unit.images
    ]


def read_source(source: Source, index: int) -> Pixels:
    """The picture of a batch. Raises UnitError with the file's name."""
    if not isinstance(source, Path):
        return source
    try:
        with Image.open(source, formats=FORMATS) as image:
            return read_rgb(image)
    except (OSError, ValueError) as error:
        raise UnitError(
            f'the picture "{source.name}" of the batch cannot be read',
            unit=index,
            field="images",
            found=str(error),
            remedy="take it out of the batch, or save it anew as PNG",
        ) from error


def _sources(unit: ControlNetUnit) -> tuple[Source, ...]:
    if unit.images:
        return unit.images
    folder = Path(unit.batch_dir)
    found = sorted(path for path in _files(folder, unit.index) if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UnitError(
            "the folder of the batch has no pictures",
            unit=unit.index,
            field="batch_dir",
            found=str(folder),
            remedy="choose a folder with PNG, JPEG or WebP files",
        )
    return tuple(found)


def _files(folder: Path, index: int) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError as error:
        raise UnitError(
            "the folder of the batch cannot be read",
            unit=index,
            field="batch_dir",
            found=f"{folder}: {error.strerror or error}",
            remedy="give the full path of a folder on the server",
        ) from error
