"""kohya's data sets: captions beside the pictures or in a JSON file, maps of the same names elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from .config import DataOptions
from .errors import TrainingError
from .examples import Reading, add_pair, captions_beside, captions_of
from .parts import by_stem

_REPEATED = re.compile(r"(\d+)_")


def kohya(options: DataOptions) -> Reading:
    """Pictures with captions beside them, or in `data.metadata` (`{"name": {"caption", "tags"}}`), and `control_folder`
    with maps of the same base names. Pictures of a folder `10_name` are shown ten times an epoch."""
    if options.control_folder is None or not options.control_folder.is_dir():
        raise TrainingError(
            "kohya's format needs the folder of the control maps (conditioning_data_dir)",
            field="data.control_folder",
            found=None if options.control_folder is None else str(options.control_folder),
        )
    found = Reading()
    written = {} if options.metadata is None else _metadata(options.metadata, found)
    hints = by_stem(options.control_folder, found)
    unused = set(hints)
    for stem, picture in by_stem(options.folder, found, without=options.control_folder).items():
        own = stem if stem in hints else Path(stem).name
        unused.discard(own)
        captions = written.get(stem) or written.get(Path(stem).name) or captions_beside(picture, options, found)
        count = len(found.examples)
        if captions is not None:
            add_pair(found, picture.name, picture, hints.get(own), captions)
        found.examples += found.examples[count:] * (_repeats(stem) - 1)
    found.problems += [f'the control map "{hints[stem].name}" has no picture' for stem in sorted(unused)]
    return found


def _repeats(stem: str) -> int:
    """What the folder's name says."""
    parts = Path(stem).parts
    match = _REPEATED.match(parts[0]) if len(parts) > 1 else None
    return max(int(match[1]), 1) if match else 1


def _metadata(path: Path, found: Reading) -> dict[str, tuple[str, ...]]:
    """The captions of kohya's fine-tuning files, by the pictures' names without suffix."""
    try:
        rows: Any = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError("the metadata cannot be read", field="data.metadata", found=str(error)) from error
    if not isinstance(rows, dict):
        raise TrainingError("the metadata must be an object of pictures", field="data.metadata", found=rows)
    captions: dict[str, tuple[str, ...]] = {}
    for name, row in cast("dict[str, Any]", rows).items():
        parts = [row.get("caption"), row.get("tags")] if isinstance(row, Mapping) else [row]
        try:
            texts = [text for part in parts if part for text in captions_of(part)]
        except ValueError as error:
            found.problems.append(f'the caption of "{name}" is {error}')
            continue
        joined = ", ".join(texts)
        captions |= {Path(name).with_suffix("").as_posix(): (joined,), Path(name).stem: (joined,)}
    return captions
