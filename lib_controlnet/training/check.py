"""The check of a data set before anything is trained: counts, missing pairs, sizes, captions, a contact sheet."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .config import DataOptions
from .errors import TrainingError
from .examples import Example, Facts, Reading, Remembered, Source
from .pictures import Pixels, fitted, training_size

_SHOWN = 5
_SAME_SHAPE = 0.02
_UNCAPTIONED = (
    'write the caption files, or set data.captions = "none" to train without prompts, or "interrogator" and start the '
    "training in the WebUI, which writes them"
)
_SHEET_SIDE = 128
_AT_ONCE, _PORTION = 8, 512


@dataclass(frozen=True)
class DataReport:
    """`sizes`: (width, height) at which pictures are trained -> how many. `problems` prevent a training, `warnings` do
    not; one sentence each. `lints`: what lints.py found, as data. `bad`: places of the pairs with a problem, those held
    out after the others."""

    pairs: int
    held_out: int
    sizes: dict[tuple[int, int], int]
    captions: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    lints: tuple[dict[str, Any], ...] = ()
    bad: frozenset[int] = frozenset()
    remedy: str = "correct the data"

    def raise_problems(self) -> None:
        """Raises TrainingError that names the first problems."""
        if not self.problems:
            return
        rest = len(self.problems) - _SHOWN
        more = f"; and {rest} more" if rest > 0 else ""
        raise TrainingError(
            f"the data has {len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}",
            field="data",
            found="; ".join(self.problems[:_SHOWN]) + more,
            remedy=f"{self.remedy}; nothing was trained yet",
        )

    def as_json(self) -> dict[str, Any]:
        """For the page and the API."""
        return {
            "pairs": self.pairs,
            "held_out": self.held_out,
            "sizes": {f"{width}x{height}": count for (width, height), count in self.sizes.items()},
            "captions": self.captions,
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "lints": list(self.lints),
        }


def check_data(
    reading: Reading,
    options: DataOptions,
    progress: Callable[[int, int], None] | None = None,
    remembered: Remembered | None = None,
) -> DataReport:
    """Look at every pair's headers and captions. `progress` is told (done, all) and may raise; what is `remembered` of
    pictures is not read again."""
    problems, warnings = list(reading.problems), list[str]()
    examples = [*reading.examples, *reading.held_out]
    sizes: Counter[tuple[int, int]] = Counter()
    small, bad = 0, set[int]()
    empty_allowed = options.allow_empty_captions or options.captions == "none"
    for number, (example, looked) in enumerate(_look_at(examples, remembered)):
        if not all(example.captions) and not empty_allowed:
            problems.append(f'"{example.name}" has an empty caption')
            bad.add(number)
        if isinstance(looked, str):
            problems.append(looked)
            bad.add(number)
        else:
            wanted = training_size(looked, options.resolution, options.aspect)
            sizes[wanted] += 1
            small += looked[0] < wanted[0] or looked[1] < wanted[1]
        if progress is not None:
            progress(number + 1, len(examples))
    if not reading.examples and not problems:
        problems.append("there is no complete pair")
    train, held_out = split(reading, options) if reading.examples else ([], reading.held_out)
    if small:
        warnings.append(f"{small} of {len(examples)} pictures are smaller than {options.resolution} pixels")
    if reading.left_out:
        warnings.append(_left_out(reading.left_out))
    if reading.to_caption:
        warnings.append(f"{len(reading.to_caption)} captions are missing; the interrogator is to write them")
    captions = {caption for example in examples for caption in example.captions}
    if len(examples) > _SHOWN and len(captions) == 1 and options.captions != "none":
        warnings.append("all captions are the same")
    return DataReport(len(train), len(held_out), dict(sizes), len(captions), tuple(problems), tuple(warnings),
                      bad=frozenset(bad),
                      remedy=_UNCAPTIONED if reading.uncaptioned else "correct the data")  # fmt: skip


def _left_out(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return (
        f"{len(names)} files or linked folders are left out ({shown}): save pictures as PNG, JPEG or WebP, and move "
        "folders here"
    )


def usable(reading: Reading, report: DataReport) -> Reading:
    """The pairs without a problem."""
    count = len(reading.examples)
    return Reading(
        [example for place, example in enumerate(reading.examples) if place not in report.bad],
        [example for place, example in enumerate(reading.held_out, count) if place not in report.bad],
    )


def _look_at(
    examples: Sequence[Example], remembered: Remembered | None
) -> Iterator[tuple[Example, tuple[int, int] | str]]:
    """Each example with its picture's size, or with what is wrong; several at once, since disks and archives wait."""
    facts = _facts if remembered is None else remembered.look
    with ThreadPoolExecutor(_AT_ONCE, "controlnet-check") as pool:
        for start in range(0, len(examples), _PORTION):  # so that a stop need not wait for all
            part = examples[start : start + _PORTION]
            yield from zip(part, pool.map(lambda example: _size_of(example, facts), part), strict=True)


def _facts(source: Source) -> Facts:
    return source.facts()


def _size_of(example: Example, facts: Callable[[Source], Facts]) -> tuple[int, int] | str:
    """The picture's size; a map of another shape would not lie on its picture."""
    try:
        size = facts(example.picture).size
        hint = size if example.hint is None else facts(example.hint).size
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
        TrainingError,
    ) as error:
        return f'"{example.name}" cannot be read ({type(error).__name__})'
    if 0 in (*size, *hint):
        return f'"{example.name}" is empty'
    if abs(size[0] * hint[1] / (size[1] * hint[0]) - 1) > _SAME_SHAPE:
        return f'"{example.name}" is {size[0]}x{size[1]}, but its control map {hint[0]}x{hint[1]}: not the same shape'
    return size


def contact_sheet(examples: Sequence[Example], columns: int = 8) -> Pixels:
    """The first pairs, maps (where there are files) above pictures, as one picture."""
    side, rows = (_SHEET_SIDE, _SHEET_SIDE), []
    shown = list(examples[:columns])
    for read in ([example.hint for example in shown], [example.picture for example in shown]):
        cells = [fitted(one(), side) for one in read if one is not None]
        if cells:
            cells += [np.zeros_like(cells[0])] * (len(shown) - len(cells))
            rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows, axis=0)


def split(reading: Reading, options: DataOptions) -> tuple[list[Example], list[Example]]:
    """(to train on, held out): the data set's own held-out pairs, else pairs spread evenly over it. A pair that is
    there several times is trained on or held out, never both."""
    if reading.held_out or not options.held_out:
        return reading.examples, reading.held_out[: options.held_out]
    different = list(dict.fromkeys(reading.examples))
    count = min(options.held_out, len(different) - 1)
    chosen = {different[round(index)] for index in np.linspace(0, len(different) - 1, count)} if count else set()
    return (
        [example for example in reading.examples if example not in chosen],
        [example for example in different if example in chosen],
    )
