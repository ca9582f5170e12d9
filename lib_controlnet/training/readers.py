"""Data sets on the disk, in the layouts of the tools that people come from.

A reader finds pairs and captions without opening pictures. What does not pair up is a problem that is told before the
training, not an exception in the middle of it.
"""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import DataOptions
from .errors import TrainingError
from .pictures import SUFFIXES, Pixels, picture_size, read_picture


@dataclass(frozen=True, eq=False)
class Example:
    """One pair. `captions`: one is chosen at each visit. `picture`, `hint`: read them, RGB (h, w, 3) uint8; `hint` is
    None where a preprocessor makes it. `size`: (width, height) from the header. `stamp`: changes when a file does."""

    name: str
    captions: tuple[str, ...]
    picture: Callable[[], Pixels]
    hint: Callable[[], Pixels] | None
    size: Callable[[], tuple[int, int]]
    hint_size: Callable[[], tuple[int, int]] | None
    stamp: str


@dataclass
class Reading:
    """What a reader found. `held_out`: pairs the data set itself keeps for samples. `problems`: one sentence each.
    `to_caption`: pictures whose captions the host's interrogator is to write before the training."""

    examples: list[Example] = field(default_factory=list)
    held_out: list[Example] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    to_caption: list[Path] = field(default_factory=list)


Reader = Callable[[DataOptions], Reading]


def read_data(options: DataOptions, extra: Mapping[str, Reader] | None = None) -> Reading:
    """All pairs of the data set. `extra` are further formats by name. Raises TrainingError where there is none."""
    readers: dict[str, Reader] = {**READERS, **(extra or {})}
    if options.format not in readers:
        raise TrainingError(
            f'there is no data format "{options.format}"',
            field="data.format",
            remedy=f"there are: {', '.join(readers)}",
        )
    if options.format in READERS and not options.folder.exists():
        raise TrainingError("the data folder is not there", field="data.folder", found=str(options.folder))
    found = readers[options.format](options)
    if options.count:
        found.examples = found.examples[: options.count]
    return found


def file_example(name: str, picture: Path, hint: Path | None, captions: Iterable[str]) -> Example:
    """A pair of picture files."""
    stamps = [f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in (picture, hint) if path]
    return Example(
        name,
        tuple(caption.strip() for caption in captions),
        lambda: read_picture(picture, name),
        None if hint is None else lambda: read_picture(hint, hint.name),
        lambda: picture_size(picture),
        None if hint is None else lambda: picture_size(hint),
        "|".join(stamps),
    )


def _pair(found: Reading, name: str, picture: Path | None, hint: Path | None, captions: Iterable[str]) -> None:
    for what, path in (("picture", picture), ("control map", hint)):
        if path is None or not path.is_file():
            where = f" ({path.name})" if path is not None and path.name != name else ""
            found.problems.append(f'"{name}" has no {what}{where}')
            return
    assert picture is not None
    found.examples.append(file_example(name, picture, hint, captions))


def _fill50k(options: DataOptions) -> Reading:
    """The paper's: `prompt.json` with one object a line, `source` and `target` below the folder."""
    found = Reading()
    for number, row in _json_lines(options.folder / "prompt.json"):
        try:
            source, target, prompt = str(row["source"]), str(row["target"]), str(row["prompt"])
        except (KeyError, TypeError):
            found.problems.append(f"prompt.json, line {number}: no source, target and prompt")
            continue
        _pair(found, target, options.folder / target, options.folder / source, [prompt])
    return found


def _json_lines(path: Path) -> Iterable[tuple[int, Any]]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path.name} cannot be read", field="data.folder", found=str(error)) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TrainingError(
                f"{path.name}, line {number} is no JSON", field="data", found=f"{len(line)} characters"
            ) from error


_COLUMNS = {
    "picture": ("image", "file_name", "image_file_name"),
    "hint": ("conditioning_image", "conditioning_image_file_name", "conditioning_file_name"),
    "text": ("text", "caption", "prompt"),
}


def _diffusers(options: DataOptions) -> Reading:
    """diffusers' columns image, conditioning_image, text: a folder with metadata.jsonl or metadata.csv naming files,
    or three folders of these names whose files pair by base name."""
    folder, found = options.folder, Reading()
    rows: list[tuple[str, Any]] = []
    if (folder / "metadata.jsonl").is_file():
        rows = [(f"line {number}", row) for number, row in _json_lines(folder / "metadata.jsonl")]
    elif (folder / "metadata.csv").is_file():
        with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
            rows = [(f"line {number}", row) for number, row in enumerate(csv.DictReader(stream), 2)]
    else:
        return _three_folders(folder)
    for place, row in rows:
        values = {kind: next((row[c] for c in names if row.get(c)), None) for kind, names in _COLUMNS.items()}
        if values["picture"] is None or values["hint"] is None:
            found.problems.append(f"metadata, {place}: no image and conditioning_image")
            continue
        text = values["text"] or ""
        captions = [str(one) for one in text] if isinstance(text, list) else [str(text)]
        _pair(found, str(values["picture"]), folder / values["picture"], folder / values["hint"], captions)
    return found


def _three_folders(folder: Path) -> Reading:
    parts = {kind: _folder_of(folder, names) for kind, names in (
        ("picture", ("image", "images")), ("hint", ("conditioning_image", "conditioning_images")), ("text", ("text",)),
    )}  # fmt: skip
    found = Reading()
    hints = _by_stem(parts["hint"], found)
    for stem, picture in _by_stem(parts["picture"], found).items():
        _pair(found, picture.name, picture, hints.pop(stem, None), [_caption(parts["text"] / f"{stem}.txt", found)])
    found.problems += [f'"{path.name}" has no picture' for path in hints.values()]
    return found


def _folder_of(folder: Path, names: Iterable[str]) -> Path:
    present = next((folder / name for name in names if (folder / name).is_dir()), None)
    if present is None:
        raise TrainingError(
            "the folder has neither metadata.jsonl nor metadata.csv nor the folders image, conditioning_image and text",
            field="data.folder",
            found=f"no {' or '.join(names)} in {folder}",
            remedy='add one of them, or choose another data.format ("fill50k", "kohya", "webdataset", "pictures")',
        )
    return present


def _by_stem(folder: Path, found: Reading) -> dict[str, Path]:
    """Pictures of a folder by base name, in order; two of one base name are a problem."""
    by_stem: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        if path.stem in by_stem:
            found.problems.append(f'"{path.name}" and "{by_stem[path.stem].name}" have the same base name')
        by_stem[path.stem] = path
    return by_stem


def _caption(path: Path, found: Reading) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError:
        found.problems.append(f'the caption file "{path.name}" is not there')
    except UnicodeDecodeError:
        found.problems.append(f'the caption file "{path.name}" is not UTF-8')
    return ""


def _captions_beside(picture: Path, options: DataOptions, found: Reading) -> list[str]:
    """The caption in the file beside `picture`; none where it is yet to be written."""
    path = picture.with_suffix(options.caption_extension)
    if options.captions == "none":
        return [""]
    if options.captions == "interrogator" and not path.exists():
        found.to_caption.append(picture)
        return []
    return [_caption(path, found)]


def _kohya(options: DataOptions) -> Reading:
    """kohya's: pictures with captions beside them, and `control_folder` with maps of the same base names."""
    if options.control_folder is None or not options.control_folder.is_dir():
        raise TrainingError(
            "kohya's format needs the folder of the control maps (conditioning_data_dir)",
            field="data.control_folder",
            found=None if options.control_folder is None else str(options.control_folder),
        )
    found = Reading()
    hints = _by_stem(options.control_folder, found)
    for stem, picture in _by_stem(options.folder, found).items():
        captions = _captions_beside(picture, options, found)
        _pair(found, picture.name, picture, hints.pop(stem, None), captions)
    found.problems += [f'the control map "{path.name}" has no picture' for path in hints.values()]
    return found


def _pictures(options: DataOptions) -> Reading:
    """Plain pictures with captions beside them; `preprocessor` makes the maps."""
    if options.preprocessor == "none":
        raise TrainingError(
            "plain pictures need a preprocessor that makes their control maps",
            field="data.preprocessor",
            remedy='name one, such as "canny"',
        )
    found = Reading()
    for picture in _by_stem(options.folder, found).values():
        captions = _captions_beside(picture, options, found)
        found.examples.append(file_example(picture.name, picture, None, captions))
    return found


_PARTS = {
    "picture": ("jpg", "jpeg", "png", "webp", "target.png", "target.jpg", "image.png", "image.jpg"),
    "hint": ("hint.png", "hint.jpg", "source.png", "source.jpg", "conditioning.png", "cond.png", "control.png"),
    "text": ("txt", "caption", "text"),
}


def _webdataset(options: DataOptions) -> Reading:
    """WebDataset shards: tar files in which members of one name belong together (`0001.jpg`, `0001.hint.png`,
    `0001.txt`). They are read by place, not as a stream, so the order of a training can be repeated and resumed."""
    folder, found = options.folder, Reading()
    shards = [folder] if folder.is_file() else sorted(folder.glob("*.tar"))
    for shard in shards:
        try:
            with tarfile.open(shard, "r:") as archive:
                members = [member for member in archive if member.isfile()]
        except (OSError, tarfile.TarError) as error:
            found.problems.append(f'the shard "{shard.name}" cannot be read ({error})')
            continue
        for key, parts in _members(members).items():
            _shard_pair(found, shard, key, parts)
    return found


def _members(members: Iterable[tarfile.TarInfo]) -> dict[str, dict[str, tarfile.TarInfo]]:
    """By the name up to the first dot behind the last slash, then by the rest, as WebDataset splits names."""
    grouped: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in members:
        folder, slash, file = member.name.rpartition("/")
        stem, _, rest = file.partition(".")
        grouped.setdefault(folder + slash + stem, {})[rest.lower()] = member
    return grouped


def _shard_pair(found: Reading, shard: Path, key: str, parts: Mapping[str, tarfile.TarInfo]) -> None:
    chosen = {kind: next((parts[part] for part in names if part in parts), None) for kind, names in _PARTS.items()}
    picture, hint, text = chosen["picture"], chosen["hint"], chosen["text"]
    name = f"{shard.name}/{key}"
    if picture is None or hint is None:
        found.problems.append(f'"{name}" has no {"picture" if picture is None else "control map"}')
        return

    def read(member: tarfile.TarInfo) -> bytes:
        with shard.open("rb") as stream:
            stream.seek(member.offset_data)
            return stream.read(member.size)

    caption = "" if text is None else read(text).decode("utf-8", "replace")
    if text is None:
        found.problems.append(f'"{name}" has no caption')

    def pixels(member: tarfile.TarInfo) -> Callable[[], Pixels]:
        return lambda: read_picture(read(member), f"{shard.name}/{member.name}")

    def size(member: tarfile.TarInfo) -> Callable[[], tuple[int, int]]:
        def look() -> tuple[int, int]:
            height, width, _ = pixels(member)().shape
            return width, height

        return look

    stamp = f"{name}:{shard.stat().st_size}:{shard.stat().st_mtime_ns}"
    found.examples.append(
        Example(name, (caption.strip(),), pixels(picture), pixels(hint), size(picture), size(hint), stamp)
    )


READERS: Mapping[str, Reader] = {
    "fill50k": _fill50k,
    "diffusers": _diffusers,
    "kohya": _kohya,
    "pictures": _pictures,
    "webdataset": _webdataset,
}
