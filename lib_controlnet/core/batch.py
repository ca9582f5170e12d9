"""Units with many pictures: those of a batch taken one by one, those to be merged taken apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from .errors import UnitError
from .folders import PictureFolder, picture_folder, result_names
from .images import Pixels, read_file
from .modes import InputMode
from .units import ControlNetUnit, Source


class Batch:
    """The units of a job of which at least one has a picture for each generation.

    As long as the shortest of its lists; units that are not in batch mode act alike in every turn. Files are read in
    their turn. `first` is the number of the turn that is turn 0 here, and `length` the number of turns from there.
    """

    def __init__(self, units: Sequence[ControlNetUnit]) -> None:
        self._units = tuple(units)
        self._sources = {unit.index: _sources(unit) for unit in units if is_batch(unit)}
        self.first = 0
        self.length = min(len(sources) for sources in self._sources.values())

    @property
    def output_dir(self) -> str:
        """Where the results are to be saved under their sources' names; "" where the host saves them."""
        return next((unit.output_dir for unit in self._units if is_batch(unit) and unit.output_dir), "")

    @property
    def folders(self) -> list[Path]:
        """The folders that pictures come from."""
        return [Path(unit.batch_dir) for unit in self._units if is_batch(unit) and not unit.images]

    @property
    def notes(self) -> list[str]:
        """What of the folders is not taken, in sentences."""
        return [note for folder in self.folders if (note := picture_folder(folder).note)]

    def names(self, copies: int) -> list[str]:
        """What the results of each turn are called, of which there are `copies`; see `result_names`."""
        sources = next(iter(self._sources.values()))
        names = [
            source.name if isinstance(source, Path) else f"{number:05d}.png" for number, source in enumerate(sources)
        ]
        return result_names(names, copies)[self.first : self.first + self.length]

    def only(self, number: int) -> Batch:
        """The one turn of that number as a batch of its own."""
        alone = copy(self)
        alone.first, alone.length = self.first + number, 1
        return alone

    def turn(self, number: int, last: Pixels | None = None) -> tuple[ControlNetUnit, ...]:
        """The units of generation `number`; those that loop work on `last`, the result before, if there is one."""
        return tuple(self._at(unit, self.first + number, last) for unit in self._units)

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
    common = {
        **_weights(unit, lambda weight: weight / count),
        "mask": None,
        "input_mode": InputMode.simple,
        "images": (),
    }
    return [replace(unit, image=read_source(source, unit.index), **common) for source in unit.images]


def together(units: Sequence[ControlNetUnit]) -> ControlNetUnit:
    """What `parted` took apart as one unit again, without its pictures."""
    unit, count = units[0], len(units)
    if count == 1:
        return unit
    return replace(unit, **_weights(unit, lambda weight: round(weight * count, 6)), input_mode=InputMode.merge)


def _weights(unit: ControlNetUnit, change: Callable[[float], float]) -> dict[str, Any]:
    """All that says how strong a unit is, changed. A curve that multiplies layer weights stays as it is."""
    weight, layers, curves = change(unit.weight), unit.layer_weights, (unit.weight_schedule, unit.hr_weight_schedule)
    if layers is not None:
        return {"weight": weight, "layer_weights": tuple(change(layer) for layer in layers)}
    base, hires = (None if curve is None else curve.changed(change) for curve in curves)
    return {"weight": weight, "weight_schedule": base, "hr_weight_schedule": hires}


def read_source(source: Source, index: int) -> Pixels:
    """The picture of a batch. Raises UnitError with the file's name."""
    if not isinstance(source, Path):
        return source
    try:
        return read_file(source)
    except UnitError as error:
        raise UnitError(
            f'the picture "{source.name}" of the batch cannot be read',
            unit=index,
            field="images",
            found=error.problem if error.found is None else f"{error.problem}: {error.found}",
            remedy="take it out of the batch, or save it anew as PNG",
        ) from error


def _sources(unit: ControlNetUnit) -> tuple[Source, ...]:
    if unit.images:
        return unit.images
    folder = _folder(unit)
    if not folder.pictures:
        raise UnitError(
            "the folder of the batch has no pictures",
            unit=unit.index,
            field="batch_dir",
            found=folder.note or str(folder.path),
            remedy="choose a folder with PNG, JPEG or WebP files",
        )
    return folder.pictures


def _folder(unit: ControlNetUnit) -> PictureFolder:
    try:
        return picture_folder(Path(unit.batch_dir))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnitError(
            "the folder of the batch cannot be read",
            unit=unit.index,
            field="batch_dir",
            found=f"{unit.batch_dir}: {reason or error}",
            remedy="give the full path of a folder on the server",
        ) from error
