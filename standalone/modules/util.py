"""Small helpers with the host's names: natural order, file listing, topological sort."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path


def natural_sort_key(text: str) -> list[str | int]:
    """Key by which "file2" sorts before "file10"."""
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(re.split("([0-9]+)", text))]


def listfiles(dirname: str) -> list[str]:
    """Files directly in `dirname` in natural order, without dot files."""
    folder = Path(dirname)
    names = (x.name for x in folder.iterdir() if not x.name.startswith(".") and x.is_file())
    return [str(folder / name) for name in sorted(names, key=natural_sort_key)]


def walk_files(path: str, allowed_extensions: Collection[str] | None = None) -> Iterator[str]:
    """All files below `path`, folders and their files in natural order; `allowed_extensions` as [".pt", ...].

    Links are followed, each folder once. Hidden files and folders are left out.
    """
    allowed = {x.lower() for x in allowed_extensions} if allowed_extensions is not None else None
    seen: set[str] = set()
    found: list[tuple[str, list[str]]] = []
    for root, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = [] if real in seen else [x for x in folders if not x.startswith(".")]
        if real not in seen:
            found.append((root, files))
        seen.add(real)
    for root, files in sorted(found, key=lambda x: natural_sort_key(x[0])):
        for file in sorted(files, key=natural_sort_key):
            if not file.startswith(".") and (allowed is None or Path(file).suffix.lower() in allowed):
                yield str(Path(root) / file)


def topological_sort(dependencies: dict[str, list[str]]) -> list[str]:
    """Names ordered so that each comes after what it depends on; cycles and unknown names are ignored."""
    done: list[str] = []
    active: set[str] = set()

    def visit(name: str) -> None:
        if name in active or name in done or name not in dependencies:
            return
        active.add(name)
        for other in sorted(dependencies[name]):
            visit(other)
        active.discard(name)
        done.append(name)

    for name in dependencies:
        visit(name)
    return done
