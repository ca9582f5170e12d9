"""Folders of pictures: which of their files are taken, in which order, and what their results are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .natural import natural_key

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))
_SHOWN = 5


@dataclass(frozen=True)
class PictureFolder:
    """The pictures directly in a folder in the host's order, and the names of what is passed over."""

    path: Path
    pictures: tuple[Path, ...]
    others: tuple[str, ...]

    @property
    def note(self) -> str:
        """What was passed over, in a sentence; "" where that was nothing."""
        if not self.others:
            return ""
        count = len(self.others)
        names = ", ".join(self.others[:_SHOWN]) + (", ..." if count > _SHOWN else "")
        words = "1 file is no picture and was" if count == 1 else f"{count} files are no pictures and were"
        return f"of the folder {self.path}, {words} passed over: {names}"


def picture_folder(folder: Path) -> PictureFolder:
    """The folder's pictures: by their suffix, without hidden files, as A1111 orders them (2 before 10).

    A link to nothing with a picture's name counts as one, lest the pictures behind it move up. Raises OSError.
    """
    paths = sorted((path for path in folder.iterdir() if not path.is_dir()), key=lambda path: natural_key(path.name))
    pictures = [path for path in paths if _is_picture(path)]
    return PictureFolder(folder, tuple(pictures), tuple(path.name for path in paths if not _is_picture(path)))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def result_names(sources: Sequence[str], copies: int) -> list[str]:
    """A name for the results of each source, by its file name: the stem where all results are then told apart.

    The second result of a source has "-1" at its end, and so on up to `copies`. What would be called alike (`a.png`
    beside `a.jpg`, or beside `a-1.png`) keeps its suffix, and then has its number before it.
    """
    stems = [Path(source).stem for source in sources]
    numbered = [f"{number:05d}-{source}" for number, source in enumerate(sources)]
    for longer in (list(sources), numbered):
        taken = Counter(name.casefold() for stem in stems for name in _results(stem, copies))
        stems = [
            other if any(taken[name.casefold()] > 1 for name in _results(stem, copies)) else stem
            for stem, other in zip(stems, longer, strict=True)
        ]
    return stems


def _results(name: str, copies: int) -> list[str]:
    return [f"{name}-{copy}" if copy else name for copy in range(copies)]
