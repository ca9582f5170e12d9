"""The pictures of an enabled unit, as callers give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from .errors import ControlNetError, UnitError, shown
from .images import Picture, Pixels, is_empty, read_mask, read_picture, read_rgb, same_size
from .modes import InputMode

MAX_IMAGES = 1000
"""Pictures of a unit's batch or merge."""
Source = Path | Pixels
"""A picture of a batch: a file that the page uploaded, read when its turn comes, or (H, W, 3) uint8."""


@dataclass(frozen=True)
class Entry:
    """A value and the name under which the caller gave it."""

    key: str
    value: object


def read_pictures(entries: Mapping[str, Entry], index: int, max_pixels: int) -> dict[str, Pixels | None]:
    """image, mask and region_mask of an enabled unit."""
    picture = read_as("image", partial(read_picture, max_pixels=max_pixels), entries, index)
    mask = read_as("mask", partial(read_mask, max_pixels=max_pixels), entries, index)
    region = read_as("region_mask", partial(read_mask, max_pixels=max_pixels), entries, index)
    pixels = cast("Picture | None", picture)
    if pixels is None:
        if mask is not None:
            raise UnitError(
                "there is a mask but no image", field=entries["mask"].key, remedy="send the masked picture as image"
            )
        return {"image": None, "mask": None, "region_mask": region}
    return {"image": pixels.pixels, "mask": _one_mask(pixels, mask), "region_mask": region}


def read_as(name: str, read: Callable[[object], Any], entries: Mapping[str, Entry], index: int) -> Any:
    if name not in entries or is_empty(entries[name].value):
        return None
    try:
        return read(entries[name].value)
    except ControlNetError as error:
        raise error.for_unit(index, entries[name].key) from error.__cause__


def _one_mask(picture: Picture, mask: Pixels | None) -> Pixels | None:
    """The mask given beside the picture or in it; a blank sketch layer in it is no second mask."""
    inner = picture.mask if picture.mask is not None and picture.mask.any() else None
    if mask is None:
        return picture.mask
    if inner is not None:
        raise UnitError("there are two masks", field="mask", remedy="send it either beside the image or in it")
    same_size(picture.pixels, mask)
    return mask


def read_images(entries: Mapping[str, Entry], fields: Mapping[str, Any], max_pixels: int) -> tuple[Source, ...]:
    """The pictures of a batch or merge; what the page holds for them is not looked at in the simple mode."""
    mode = fields.get("input_mode", InputMode.simple)
    if mode is InputMode.simple:
        return ()
    entry = entries.get("images")
    found = () if entry is None else _images_of(entry, max_pixels)
    if not found and not (mode is InputMode.batch and fields.get("batch_dir")):
        raise UnitError(
            f"the input mode is {mode.value}, and there are no pictures for it",
            field="input_mode",
            remedy="give images, choose a folder, or use the input mode simple",
        )
    return found


def _within(items: Sequence[object], max_pixels: int) -> Iterator[Source]:
    """The pictures, those in memory together not above what one alone may have four times."""
    left = 4 * max_pixels
    for number, item in enumerate(items, 1):
        source = item if isinstance(item, Path) else _numbered(number, item, max_pixels)
        if not isinstance(source, Path):
            left -= source.shape[0] * source.shape[1]
        if left < 0:
            limit = 4 * max_pixels // 1_000_000
            raise UnitError(
                "the pictures of a unit are too large together",
                found=f"more than {limit} megapixels",
                remedy=f"give fewer or smaller ones, at most {limit} megapixels, or a folder",
            )
        yield source


def _numbered(number: int, item: object, max_pixels: int) -> Pixels:
    try:
        return read_rgb(item, max_pixels=max_pixels)
    except UnitError as error:
        found = f"picture {number} of the list" + ("" if error.found is None else f": {shown(error.found)}")
        raise UnitError(error.problem, found=found, remedy=error.remedy) from error.__cause__


def _images_of(entry: Entry, max_pixels: int) -> tuple[Source, ...]:
    value = entry.value
    if not isinstance(value, (list, tuple)):
        raise UnitError("this is not a list of pictures", field=entry.key, found=value)
    items = cast(Sequence[object], value)
    if len(items) > MAX_IMAGES:
        raise UnitError(
            "there are too many pictures in a unit",
            field=entry.key,
            found=f"{len(items)} pictures",
            remedy=f"give at most {MAX_IMAGES}, or a folder",
        )
    try:
        return tuple(_within(items, max_pixels))
    except UnitError as error:
        raise UnitError(error.problem, field=entry.key, found=error.found, remedy=error.remedy) from error.__cause__
