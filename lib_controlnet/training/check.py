"""The check of a data set before anything is trained: counts, missing pairs, sizes, captions, a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .config import DataOptions
from .errors import TrainingError
from .pictures import Pixels, fitted, training_size
from .readers import Example, Reading

_SHOWN = 5
_SAME_SHAPE = 0.02
_SHEET_SIDE = 128


@dataclass(frozen=True)
class DataReport:
    """`sizes`: (width, height) at which pictures are trained -> how many. `problems` prevent a training, `warnings` do
    not; one sentence each."""

    pairs: int
    held_out: int
    sizes: dict[tuple[int, int], int]
    captions: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

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
            remedy="correct the data; nothing was trained yet",
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
        }


def check_data(
    reading: Reading, options: DataOptions, progress: Callable[[int, int], None] | None = None
) -> DataReport:
    """Look at every pair's headers and captions. `progress` is told (done, all)."""
    problems, warnings = list(reading.problems), list[str]()
    examples = [*reading.examples, *reading.held_out]
    sizes: Counter[tuple[int, int]] = Counter()
    small = 0
    empty_allowed = options.allow_empty_captions or options.captions == "none"
    for number, example in enumerate(examples):
        if not all(example.captions) and not empty_allowed:
            problems.append(f'"{example.name}" has an empty caption')
        size = _check_sizes(example, problems)
        if size is not None:
            wanted = training_size(size, options.resolution, options.aspect)
            sizes[wanted] += 1
            small += size[0] < wanted[0] or size[1] < wanted[1]
        if progress is not None:
            progress(number + 1, len(examples))
    if not reading.examples:
        problems.append("there is no complete pair")
    held_out = len(reading.held_out) or min(options.held_out, max(len(reading.examples) - 1, 0))
    if small:
        warnings.append(f"{small} of {len(examples)} pictures are smaller than {options.resolution} pixels")
    if reading.to_caption:
        warnings.append(f"{len(reading.to_caption)} captions are missing; the interrogator is to write them")
    captions = {caption for example in examples for caption in example.captions}
    if len(examples) > _SHOWN and len(captions) == 1 and options.captions != "none":
        warnings.append("all captions are the same")
    pairs = len(reading.examples) if reading.held_out else len(reading.examples) - held_out
    return DataReport(pairs, held_out, dict(sizes), len(captions), tuple(problems), tuple(warnings))


def _check_sizes(example: Example, problems: list[str]) -> tuple[int, int] | None:
    """The picture's size; a map of another shape would not lie on its picture."""
    try:
        size = example.size()
        hint = size if example.hint_size is None else example.hint_size()
    except (OSError, ValueError, SyntaxError, TrainingError) as error:
        problems.append(f'"{example.name}" cannot be read ({type(error).__name__})')
        return None
    if abs(size[0] * hint[1] / (size[1] * hint[0]) - 1) > _SAME_SHAPE:
        problems.append(
            f'"{example.name}" is {size[0]}x{size[1]}, but its control map {hint[0]}x{hint[1]}: not the same shape'
        )
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
    """(to train on, held out): the data set's own held-out pairs, else pairs spread evenly over it."""
    if reading.held_out or not options.held_out:
        return reading.examples, reading.held_out[: options.held_out]
    count = min(options.held_out, len(reading.examples) - 1)
    chosen = {round(index) for index in np.linspace(0, len(reading.examples) - 1, count)} if count else set()
    return (
        [example for index, example in enumerate(reading.examples) if index not in chosen],
        [reading.examples[index] for index in sorted(chosen)],
    )
