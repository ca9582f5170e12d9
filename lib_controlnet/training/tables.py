"""Data sets with a table: the paper's prompt.json, and Hugging Face's columns as JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from .config import DataOptions
from .errors import TrainingError
from .examples import (
    COLUMNS,
    Example,
    Reading,
    Source,
    add_pair,
    caption_file,
    captions_of,
    json_lines,
    picture_file,
)
from .parquet import Parquet
from .parts import Part, blocks, by_stem

_HELD_OUT = ("validation", "valid", "val", "test")
_FILES = ("metadata.jsonl", "metadata.csv")
Row = Mapping[str, Any]


def fill50k(options: DataOptions) -> Iterator[Part]:
    """The paper's: `prompt.json` with one object a line, `source` and `target` below the folder."""
    for rows in blocks(json_lines(options.folder / "prompt.json")):
        yield Part(partial(_fill50k, options.folder, rows))


def _fill50k(folder: Path, rows: Iterable[tuple[int, Row | None]]) -> Reading:
    found = Reading()
    for number, row in rows:
        names = [None, None] if row is None else [row.get("source"), row.get("target")]
        try:
            captions = captions_of({} if row is None or "prompt" not in row else row["prompt"])
        except ValueError:
            captions = ()
        source, target = names
        if not captions or not isinstance(source, str) or not isinstance(target, str):
            found.problems.append(f"prompt.json, line {number}: no source, target and prompt")
            continue
        add_pair(found, target, folder / target, folder / source, captions)
    return found


def table(options: DataOptions) -> Iterator[Part]:
    """Hugging Face's data sets as they lie in a folder: metadata.jsonl, metadata.csv or Parquet files with the columns
    image, conditioning_image, text, also below `train` and `validation`; a single such file; or three folders of these
    names whose files pair by base name. Pairs of a validation split are held out. Parts are blocks of rows."""
    folder = options.folder
    if folder.is_file():
        yield from _parts_of(folder, options)
        return
    tables = [path for part in [folder, *_below(folder)] for path in _tables(part)]
    for held_out in (True, False):
        for path in tables:
            if _is_held_out(path, folder) == held_out:
                yield from _parts_of(path, options, held_out)
    if not tables:
        yield Part(partial(_three_folders, folder))


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _tables(folder: Path) -> list[Path]:
    """The table of a folder: of metadata files one, of Parquet's shards all."""
    named = next(([folder / name] for name in _FILES if (folder / name).is_file()), [])
    return named or sorted(folder.glob("*.parquet")) or (sorted(folder.glob("*.csv")) + sorted(folder.glob("*.jsonl")))


def _is_held_out(path: Path, folder: Path) -> bool:
    """By the split's folder, or by the shard's name as the hub writes it (`validation-00000-of-00002.parquet`)."""
    inner = path.relative_to(folder)
    split = inner.parts[0] if len(inner.parts) > 1 and inner.parts[0] != "data" else path.name.partition("-")[0]
    return split in _HELD_OUT


def _parts_of(path: Path, options: DataOptions, held_out: bool = False) -> Iterator[Part]:
    if path.suffix == ".parquet":
        yield from (Part(opened, held_out) for opened in Parquet(path, options).groups())
        return
    for rows in blocks(_csv(path) if path.suffix == ".csv" else _jsonl(path)):
        yield Part(partial(_rows, path, rows, options), held_out)


def _rows(path: Path, rows: Iterable[tuple[str, Row | None]], options: DataOptions) -> Reading:
    found = Reading()
    for place, row in rows:
        example = None if row is None else _example(path.parent, place, row, options, found)
        if row is None:
            found.problems.append(f"{path.name}, {place}: no image and conditioning_image")
        elif example is not None:
            found.examples.append(example)
    return found


def _jsonl(path: Path) -> Iterator[tuple[str, Row | None]]:
    return ((f"line {number}", row) for number, row in json_lines(path))


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
        separator = max((",", ";", "\t"), key=first.count)
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream, delimiter=separator), 2):
                yield f"line {number}", {key: value for key, value in row.items() if isinstance(key, str)}
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path.name} cannot be read", field="data.folder", found=str(error)) from error
    except csv.Error as error:
        raise TrainingError(f"{path.name} is no CSV", field="data.folder", found=str(error)) from error


def _cells(row: Row, options: DataOptions) -> tuple[Any, Any, Any]:
    """Picture, map and text of a row."""
    asked = {"picture": options.picture_column, "hint": options.hint_column, "text": options.caption_column}
    names = {kind: (asked[kind],) if asked[kind] else COLUMNS[kind] for kind in COLUMNS}
    return cast("tuple[Any, Any, Any]", tuple(
        next((row[name] for name in names[kind] if row.get(name) not in (None, "")), None) for kind in names
    ))  # fmt: skip


def _example(folder: Path, place: str, row: Row, options: DataOptions, found: Reading) -> Example | None:
    picture, hint, text = _cells(row, options)
    makes_maps = options.preprocessor != "none"
    if not isinstance(picture, str) or not (isinstance(hint, str) or (hint is None and makes_maps)):
        found.problems.append(f"metadata, {place}: no image and conditioning_image")
        return None
    sources: list[Source | None] = []
    for what, name in (("picture", picture), ("control map", hint)):
        path = None if name is None else folder / name
        if path is not None and not path.is_file():
            found.problems.append(f'"{picture}" has no {what} ({path.name})')
            return None
        sources.append(None if path is None else picture_file(path, picture if what == "picture" else path.name))
    try:
        captions = captions_of(text)
    except ValueError as error:
        found.problems.append(f"metadata, {place}: the caption is {error}")
        return None
    assert sources[0] is not None
    return Example(picture, captions, sources[0], sources[1])


def _three_folders(folder: Path) -> Reading:
    parts = {kind: _folder_of(folder, names) for kind, names in (
        ("picture", ("image", "images")), ("hint", ("conditioning_image", "conditioning_images")), ("text", ("text",)),
    )}  # fmt: skip
    found = Reading()
    hints = by_stem(parts["hint"], found)
    for stem, picture in by_stem(parts["picture"], found).items():
        text, hint = caption_file(parts["text"] / f"{stem}.txt", found), hints.pop(stem, None)
        if text is not None:
            add_pair(found, picture.name, picture, hint, [text])
    found.problems += [f'"{path.name}" has no picture' for path in hints.values()]
    return found


def _folder_of(folder: Path, names: Iterable[str]) -> Path:
    present = next((folder / name for name in names if (folder / name).is_dir()), None)
    if present is None:
        raise TrainingError(
            "the folder has neither metadata.jsonl nor metadata.csv nor Parquet files nor the folders image, "
            "conditioning_image and text",
            field="data.folder",
            found=f"no {' or '.join(names)} in {folder}",
            remedy='add one of them, or choose another data.format ("fill50k", "kohya", "webdataset", "pictures")',
        )
    return present
