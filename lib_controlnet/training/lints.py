"""What would train without an error and come to nothing: wrong maps, wrong pairs, wrong captions, wrong rates.

Each finding is a sentence with examples. Those that leave no doubt end the training before it begins, unless
`data.accept` names them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .check import DataReport
from .config import LINTS, DataOptions, TrainConfig
from .errors import TrainingError
from .examples import Example
from .options import TrainOptions
from .pictures import Pixels, fitted
from .text import longer_than_read

_SAMPLE, _SIDE, _CELLS = 64, 128, 32
_MADE = 16
"""Maps that a preprocessor makes are looked at of so many pictures: some take seconds each."""
_SHOWN = 3
_FEW = 100
_MOST = 0.9
_FEWEST_FOR_PAIRS = 12
_REFUSED = ("constant", "one map", "swapped", "rate")
_USUAL_RATES, _ABSURD_RATE = (1e-8, 2e-3), 1e-2


MakeMap = Callable[[Pixels], Pixels]
"""A picture (H, W, 3) RGB uint8 -> its control map."""


@dataclass(frozen=True)
class Lint:
    """`examples`: names of pairs. `refuses`: no training begins with it unless it is accepted."""

    name: str
    sentence: str
    examples: tuple[str, ...] = ()
    refuses: bool = False

    def __str__(self) -> str:
        named = f" ({', '.join(self.examples)})" if self.examples else ""
        accepted = f'; if it is meant, set data.accept = ["{self.name}"]' if self.refuses else ""
        return f"{self.sentence}{named}{accepted}"


def with_lints(
    report: DataReport,
    train: Sequence[Example],
    held_out: Sequence[Example],
    config: TrainConfig,
    make: MakeMap | None = None,
) -> DataReport:
    """`report` with what else is found in the data and the settings. `make`: runs the preprocessor that makes the maps
    of plain pictures. Raises TrainingError for a picture of the sample that cannot be read."""
    if report.problems:
        return report
    found = [lint for lint in find_lints(train, held_out, config, make) if lint.name not in config.data.accept]
    return replace(
        report,
        problems=tuple(str(lint) for lint in found if lint.refuses),
        warnings=(*report.warnings, *(str(lint) for lint in found if not lint.refuses)),
        lints=tuple({"name": lint.name, "sentence": lint.sentence, "examples": list(lint.examples)} for lint in found),
    )


def find_lints(
    train: Sequence[Example], held_out: Sequence[Example], config: TrainConfig, make: MakeMap | None = None
) -> list[Lint]:
    """All findings, by the names in `config.LINTS`."""
    different = list(dict.fromkeys(train))
    chosen = [example for example in _spread(different, _SAMPLE) if example.hint is not None]
    sample = [seen for example in chosen if (seen := _seen(example, config.data)) is not None]
    plain = [example for example in different if example.hint is None] if make is not None else []
    made = [seen for one in _spread(plain, _MADE) if (seen := _seen(one, config.data, make)) is not None]
    found = [
        *_rates(config.train),
        *_captions(different, config.data),
        *_looks(held_out, config),
        *_copies(different, held_out),
        *_sizes(different),
        *_maps(sample),
        *_pairs(sample),
        *_made(made, config.data, len(plain) > (1 - _MOST) * len(different)),
    ]
    assert all(lint.name in LINTS for lint in found)
    return found


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    chosen = np.linspace(0, len(examples) - 1, min(count, len(examples))).round().astype(int)
    return [examples[index] for index in chosen]


def _lint(name: str, sentence: str, examples: Iterable[Example] = ()) -> Lint:
    named = tuple(example.name for example in examples)
    shown = (*named[:_SHOWN], "…") if len(named) > _SHOWN else named
    return Lint(name, sentence, shown, name in _REFUSED)


def _rates(options: TrainOptions) -> Iterable[Lint]:
    rate, (low, high) = options.learning_rate, _USUAL_RATES
    if rate > _ABSURD_RATE:
        yield _lint("rate", f"a learning rate of {rate:g} destroys what is trained; usual are 1e-6 to 1e-4")
    elif rate > high:
        yield Lint("rate", f"a learning rate of {rate:g} is far above the usual 1e-6 to 1e-4")
    elif rate < low:
        yield Lint("rate", f"a learning rate of {rate:g} changes next to nothing; usual are 1e-6 to 1e-4")


def _captions(examples: Sequence[Example], options: DataOptions) -> Iterable[Lint]:
    if options.captions == "none":
        return
    empty = [example for example in examples if not all(example.captions)]
    if empty:
        yield _lint("empty captions", f"{len(empty)} of {len(examples)} captions are empty", empty)
    long = longer_than_read(sorted({caption for example in examples for caption in example.captions}))
    cut = [example for example in examples if long & set(example.captions)]
    if cut:
        yield _lint("long captions", f"{len(cut)} captions are longer than the 77 tokens that are read; their "
                    "ends are cut off", cut)  # fmt: skip


def _looks(held_out: Sequence[Example], config: TrainConfig) -> Iterable[Lint]:
    """Samples are of held-out pairs alone."""
    if config.samples.every and not held_out:
        why = "one pair is trained on at least" if config.data.held_out else "data.held_out is 0"
        yield _lint("no looks", f"samples are wanted, but no pair is held out ({why}): there will be no looks, and "
                    "nobody says whether it converges")  # fmt: skip


def _copies(examples: Sequence[Example], held_out: Sequence[Example]) -> Iterable[Lint]:
    pictures = Counter(example.picture.facts().fingerprint for example in examples)
    if len(pictures) < _FEW:
        yield Lint(
            "few", f"there are only {len(pictures)} different pictures; ControlNets need thousands, adapters hundreds"
        )
    again = [example for example in examples if pictures[example.picture.facts().fingerprint] > 1]
    if again:
        yield _lint("duplicates", f"{len(again)} pictures are there more than once", again)
    trained = [example for example in held_out if example.picture.facts().fingerprint in pictures]
    if trained:
        yield _lint("held out", f"{len(trained)} of the {len(held_out)} pairs held out for samples are trained on "
                    "too, so they show nothing new", trained)  # fmt: skip
    hints = Counter(example.hint.facts().fingerprint for example in examples if example.hint is not None)
    if len(hints) == 1 < len(pictures):
        yield _lint("one map", f"all {len(examples)} pictures have one and the same control map", examples)
        return
    shared = [e for e in examples if e.hint is not None and hints[e.hint.facts().fingerprint] > 1 and e not in again]
    if shared:
        yield _lint("duplicate maps", f"{len(shared)} control maps belong to more than one picture", shared)


def _sizes(examples: Sequence[Example]) -> Iterable[Lint]:
    small = [example for example in examples if example.hint_size()[0] < 0.75 * example.size()[0]]
    if small:
        factor = small[0].size()[0] / small[0].hint_size()[0]
        yield _lint("small maps", f"{len(small)} control maps are smaller than their pictures (the first one "
                    f"{factor:.1f} times); enlarged, they lose their detail", small)  # fmt: skip


class _Seen:
    """A pair at a small size; colours stay as they are. `make`: makes the map where the example has none."""

    def __init__(self, example: Example, make: MakeMap | None = None) -> None:
        self.example, self.picture = example, example.picture()
        if example.hint is None:
            assert make is not None
            self.hint = make(self.picture)
        else:
            self.hint = example.hint()

    @cached_property
    def is_same(self) -> bool:
        small = [fitted(one, (_SIDE, _SIDE)).astype(float) for one in (self.hint, self.picture)]
        return float(np.abs(small[0] - small[1]).mean()) < 2

    @cached_property
    def is_constant(self) -> bool:
        return int(self.hint.max()) - int(self.hint.min()) <= 2

    @cached_property
    def looks_swapped(self) -> bool:
        """A grey picture plainer than its coloured map."""
        return _is_grey(self.picture) and not _is_grey(self.hint) and (
            _plainness(self.picture) > _plainness(self.hint) or _detail(self.picture) < _detail(self.hint)
        )  # fmt: skip


def _seen(example: Example, options: DataOptions, make: MakeMap | None = None) -> _Seen | None:
    """None for a picture of a stream that cannot be read: it is told and passed over when it is encoded."""
    try:
        return _Seen(example, make)
    except TrainingError:
        if options.stream:
            return None
        raise


def _is_grey(pixels: Pixels) -> bool:
    return int(np.ptp(pixels.astype(np.int16), axis=2).max()) <= 16


def _plainness(pixels: Pixels) -> float:
    """Share of the most frequent level."""
    return float(np.bincount(pixels.max(2).ravel(), minlength=256).max() / pixels[..., 0].size)


def _detail(pixels: Pixels) -> float:
    return float(np.abs(cv2.Laplacian(pixels.max(2), cv2.CV_32F)).mean())


def _constant(sample: Sequence[_Seen], why: str) -> Iterable[Lint]:
    constant = [seen for seen in sample if seen.is_constant]
    if constant:
        levels = {int(seen.hint.max()) for seen in constant}
        kind = "black" if levels == {0} else "of one colour"
        sentence = f"{len(constant)} of {len(sample)} control maps looked at are {kind} and {why}"
        lint = _lint("constant", sentence, [seen.example for seen in constant])
        yield lint if len(constant) > _MOST * len(sample) else replace(lint, refuses=False)


def _same(sample: Sequence[_Seen]) -> Iterable[Lint]:
    same = [seen for seen in sample if seen.is_same and not seen.is_constant]
    if same:
        yield _lint("same", f"{len(same)} of {len(sample)} control maps looked at are their own pictures: nothing but "
                    "copying is learnt", [seen.example for seen in same])  # fmt: skip


def _made(sample: Sequence[_Seen], options: DataOptions, many: bool) -> Iterable[Lint]:
    """Of maps that a preprocessor makes. `many`: so many pairs have none that it is no matter of a few."""
    why = f"say nothing: `{options.preprocessor}` finds nothing in their pictures"
    yield from (lint if many else replace(lint, refuses=False) for lint in _constant(sample, why))
    yield from _same(sample)


def _maps(sample: Sequence[_Seen]) -> Iterable[Lint]:
    yield from _constant(sample, "say nothing")
    yield from _same(sample)
    faint = [seen for seen in sample if 2 < int(seen.hint.max()) < 32 and not seen.is_constant]
    if faint:
        most = max(int(seen.hint.max()) for seen in faint)
        yield _lint("faint", f"{len(faint)} of {len(sample)} control maps looked at use levels up to {most} of 255 "
                    "only; deep maps must be scaled to their range", [seen.example for seen in faint])  # fmt: skip


def _pairs(sample: Sequence[_Seen]) -> Iterable[Lint]:
    """Whether maps belong to their pictures, and which is which."""
    useful = [seen for seen in sample if not seen.is_constant and not seen.is_same]
    swapped = [seen for seen in useful if seen.looks_swapped]
    if swapped and len(swapped) >= _MOST * len(useful):
        yield _lint("swapped", "the control maps look like pictures and the pictures like maps: they are swapped",
                    [seen.example for seen in swapped])  # fmt: skip
        return
    different = {seen.hint.tobytes() for seen in useful}
    if len(useful) < _FEWEST_FOR_PAIRS or len(different) < len(useful) / 2:
        return
    hints, pictures = (np.stack([_outline(one) for one in ones]) for ones in (
        [seen.hint for seen in useful], [seen.picture for seen in useful],
    ))  # fmt: skip
    likeness = hints @ pictures.T
    own = np.diag(likeness)[:, None]
    better = ((own > likeness).sum(1) + 0.5 * ((own == likeness).sum(1) - 1)) / (len(useful) - 1)
    if better.mean() < 0.5 + 3 * (1 / 12 / len(useful)) ** 0.5:
        worst = [useful[index].example for index in better.argsort()]
        yield _lint(
            "shuffled", "the control maps fit other pictures as well as their own: they seem to be shuffled", worst
        )


def _outline(pixels: Pixels) -> NDArray[Any]:
    """(n,) of length 1: where there are edges, coarsely."""
    small = fitted(pixels, (_SIDE, _SIDE)).astype(np.float32).max(2)
    edges = np.hypot(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1))
    cells = cv2.resize(cv2.GaussianBlur(edges, (0, 0), 2), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA).ravel()
    cells = cells - cells.mean()
    return cells / (np.linalg.norm(cells) or 1)
