"""Which pictures there are, and where their maps go."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .options import UsageError

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"))
SHARD = ".tar"


@dataclass(frozen=True)
class Task:
    """A picture, or a WebDataset shard of many, and the file that it becomes."""

    source: Path
    target: Path
    name: str
    """For people, and where a mask is looked for: the path below the folder that was given."""

    @property
    def is_shard(self) -> bool:
        return self.source.suffix.lower() == SHARD


def find(inputs: Sequence[str], out: Path, suffix: str) -> list[Task]:
    """Every picture and shard that `inputs` (files, folders, patterns) name, each once; sorted within each input.

    Raises UsageError for an input that names nothing, and where two pictures would become one file.
    """
    tasks: dict[Path, Task] = {}
    sources: set[Path] = set()
    for given in inputs:
        found = list(_below(given))
        if not found:
            raise UsageError(f'"{given}" names no picture and no shard (known: {", ".join(sorted(PICTURES))}, {SHARD})')
        for root, path in found:
            name = path.relative_to(root)
            target = out / (name if path.suffix.lower() == SHARD else name.with_suffix(suffix))
            if path.resolve() in sources:
                continue
            if target in tasks:
                raise UsageError(f'"{path}" and "{tasks[target].source}" would both become "{target}"; run them apart')
            if path.resolve() == target.resolve():
                raise UsageError(f'"{path}" would be overwritten by its own map; choose another --out')
            sources.add(path.resolve())
            tasks[target] = Task(path, target, name.as_posix())
    return list(tasks.values())


def _below(given: str) -> Iterator[tuple[Path, Path]]:
    """(the folder names are relative to, file) for each picture and shard."""
    path = Path(given)
    if path.is_file():
        yield path.parent, path
    elif path.is_dir():
        yield from ((path, file) for file in sorted(path.rglob("*")) if _is_input(file))
    else:
        for match in sorted(glob.glob(given, recursive=True)):
            if Path(match).is_dir():
                yield from _below(match)
            elif _is_input(Path(match)):
                yield Path(match).parent, Path(match)


def _is_input(path: Path) -> bool:
    return path.suffix.lower() in PICTURES | {SHARD} and path.is_file()
