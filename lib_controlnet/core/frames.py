"""A unit's pictures for the frames of a film, as AnimateDiff asks for them in the words of sd-webui-controlnet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .errors import UnitError
from .folders import picture_folder
from .images import Pixels, read_file, read_mask, same_size
from .unit_pictures import Entry
from .values import read_bool

Modifier = Callable[[list[str], Any], Sequence[str]]
FIELD = "frames"
"""Under which `Asked` stands in a unit's fields."""
FIELDS = ("animatediff_batch", "batch_images", "batch_mask_dir", "batch_keyframe_idx", "batch_modifiers")


@dataclass(frozen=True)
class Film:
    """The pictures of a batch are the frames of a film. keys: the frames for which a unit has a picture, () for all."""

    frames: int
    keys: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Frames:
    """folder: its pictures in order, one a frame, or one a key frame of `keys`. masks: a folder with one a picture, or
    with one for all. modifiers: (paths, the host's job) -> the paths to take, one after the other.
    """

    folder: str
    masks: str = ""
    keys: tuple[int, ...] = ()
    modifiers: tuple[Modifier, ...] = ()

    def pictures(self, job: Any, count: int) -> list[tuple[Pixels, Pixels | None]]:
        """The pictures (H, W, 3) and masks (H, W) for `count` frames. Raises UnitError where there are not as many."""
        files = [str(path) for path in _pictures(self.folder, "batch_images")]
        for modifier in self.modifiers:
            files = list(modifier(files, job))
        wanted = len(self.keys) or count
        if len(files) < wanted or any(key not in range(count) for key in self.keys):
            frames = f"the key frames {', '.join(map(str, self.keys))} of {count}" if self.keys else f"{count} frames"
            raise UnitError(
                "the pictures of the unit are not those of the film's frames",
                field="batch_images",
                found=f"{len(files)} pictures in {self.folder} for {frames}",
                remedy="give a folder with one picture for each frame, or one for each of `keyframe:`, counted from 0",
            )
        masks: list[Path] = list(_pictures(self.masks, "batch_mask_dir")) if self.masks else []
        each = masks if len(masks) >= len(files) else masks[:1] * wanted
        return [_read(Path(file), each[at] if each else None) for at, file in enumerate(files[:wanted])]


class Asked(dict[str, object]):
    """FIELDS as another extension set them. A request has no such thing: it cannot name folders of the server."""


def read_frames(unit: object, given: Mapping[str, Entry]) -> Frames | None:
    """What AnimateDiff wrote into a unit object, or what became of one; None where it did not. Raises UnitError."""
    if isinstance(unit, Mapping):
        asked = given[FIELD].value if FIELD in given else None
        given = {key: Entry(key, value) for key, value in asked.items()} if isinstance(asked, Asked) else {}
    flag = given.get(FIELDS[0])
    if flag is None or not read_bool(flag.value):
        return None
    entry = given.get("batch_images")
    lines = str(entry.value).splitlines() if entry is not None else []
    if not lines or not lines[0].strip():
        raise UnitError(
            "the unit is to control a film and has no folder of pictures",
            field="batch_images",
            remedy="give the unit a folder with a picture for each frame, or AnimateDiff a video",
        )
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    keys = said.get("keyframe") or _value(given, "batch_keyframe_idx") or ()
    modifiers = cast("Sequence[Modifier]", _value(given, "batch_modifiers") or ())
    masks = said.get("mask") or _value(given, "batch_mask_dir") or ""
    return Frames(lines[0].strip().strip('"'), str(masks), _numbers(keys), tuple(modifiers))


def _value(given: Mapping[str, Entry], name: str) -> object:
    return given[name].value if name in given else None


def _numbers(value: object) -> tuple[int, ...]:
    parts = value.split(",") if isinstance(value, str) else cast("Sequence[object]", value)
    try:
        keys = tuple(int(str(part)) for part in parts)
    except (TypeError, ValueError):
        keys = (-1,)
    if any(key < 0 for key in keys) or len(set(keys)) != len(keys):
        raise UnitError(
            "these are no key frames", field="keyframe", found=value, remedy="give the frames' numbers, as in 0,8,15"
        )
    return keys


def _read(path: Path, mask: Path | None) -> tuple[Pixels, Pixels | None]:
    """A frame's picture and mask. Raises UnitError with the file's name."""
    try:
        picture = read_file(path)
        if mask is None:
            return picture, None
        marked = read_mask(read_file(mask))
        same_size(picture, marked)
        return picture, marked
    except UnitError as error:
        raise UnitError(
            f'the picture "{path.name}" of the film cannot be used',
            field="batch_images",
            found=error.problem if error.found is None else f"{error.problem}: {error.found}",
            remedy=error.remedy or "take it out of the folder, or save it anew as PNG",
        ) from error


def _pictures(folder: str, field: str) -> Sequence[Path]:
    try:
        return picture_folder(Path(folder)).pictures
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UnitError(
            "the folder of the film's pictures cannot be read",
            field=field,
            found=f"{folder}: {error}",
            remedy="give the full path of a folder on the server",
        ) from error
