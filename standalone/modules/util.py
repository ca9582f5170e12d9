"""Small helpers with the host's names: natural order, file listing, topological sort."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def natural_sort_key(text: str) -> list[str | int]:
    """Key by which "file2" sorts before "file10"."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", text)]


def listfiles(dirname: str) -> list[str]:
    """Files directly in `dirname` in natural order, without dot files."""
    folder = Path(dirname)
    names = (x.name for x in folder.iterdir() if not x.name.startswith(".") and x.is_file())
    return [str(folder / name) for name in sorted(names, key=natural_sort_key)]


def walk_files(path: str, allowed_extensions: list[str] | None = None) -> Iterator[str]:
    """All files below `path` in natural order; `allowed_extensions` as [".pt", ...]."""
    root = Path(path)
    if not root.exists():
        return
    allowed = {x.lower() for x in allowed_extensions} if allowed_extensions is not None else None
    for file in sorted((x for x in root.rglob("*") if x.is_file()), key=lambda x: natural_sort_key(str(x))):
        hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
        if not hidden and (allowed is None or file.suffix.lower() in allowed):
            yield str(file)


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
