"""What files are called in lists, and which file a name means."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

_WITH_HASH = re.compile(r"(.*?)\s*\[([0-9a-f]{8})\]", re.DOTALL | re.IGNORECASE)


def parse_name(name: str) -> tuple[str, str]:
    """A display name -> what stands before the hash, with `/` between folders, and the hash, "" where it has none."""
    found = _WITH_HASH.fullmatch(name)
    text, hash8 = (found.group(1), found.group(2).lower()) if found else (name, "")
    return text.replace("\\", "/"), hash8


def matches(text: str, path: PurePath) -> bool:
    """Whether `text` is the end of the file's path, whole folders at a time, in any case; its suffix may be missing."""
    *folders, file = text.replace("\\", "/").strip("/").lower().split("/")
    above = [part.lower() for part in path.parts[:-1]]
    return file in (path.stem.lower(), path.name.lower()) and (not folders or above[-len(folders) :] == folders)


def display_names(hashes: Mapping[Path, str]) -> Mapping[Path, str]:
    """How each file (with its hash) is called: `stem [hash]`, with as many folders before it as tell it from others.

    Files of one folder that differ in their suffix alone keep it.
    """
    alike: defaultdict[str, list[Path]] = defaultdict(list)
    for path in hashes:
        alike[path.stem.lower()].append(path)
    labels: dict[Path, str] = {}
    for group in alike.values():
        labels |= _told_apart(group)
    names = {path: f"{labels[path]} [{hash8}]" for path, hash8 in hashes.items()}
    times = Counter(names.values())  # `a.pth` of two suffixes beside `a.pth.bin`
    return {path: name if times[name] == 1 else f"{path.as_posix()} [{hashes[path]}]" for path, name in names.items()}


def _told_apart(group: Sequence[Path]) -> dict[Path, str]:
    places = [(path.parent, path.stem.lower()) for path in group]
    times = Counter(places)
    ends = [path.stem if times[place] == 1 else path.name for path, place in zip(group, places, strict=True)]
    for depth in range(max(len(path.parts) for path in group)):
        called = ["/".join((*_above(path, depth), end)) for path, end in zip(group, ends, strict=True)]
        if len({name.lower() for name in called}) == len(group):
            return dict(zip(group, called, strict=True))
    return {path: path.as_posix() for path in group}  # they differ in case alone


def _above(path: Path, depth: int) -> tuple[str, ...]:
    return tuple(part.strip("\\/") for part in path.parts[-1 - depth : -1])
