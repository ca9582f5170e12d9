"""The demo's drawn pictures as a data set of the trainer: `format = "demo"`, `control` is canny, scribble or seg."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lib_controlnet.training.config import DataOptions
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.examples import Example, Facts, Reading
from lib_controlnet.training.pictures import Pixels
from standalone.demo.controls import TYPES, control_map
from standalone.demo.data import COUNT, HELD_OUT_SEED, SEED, training_prompt
from standalone.demo.shapes import SIZE, Picture, pictures

_WORDINGS = 4


def read_shapes(options: DataOptions) -> Reading:
    """`options.count` pictures (0: all 6000), and held-out ones of another seed. Raises TrainingError."""
    if options.control not in TYPES:
        raise TrainingError(
            "the demo's data needs to know which maps to draw",
            field="data.control",
            found=options.control,
            remedy=f"there are: {', '.join(TYPES)}",
        )
    train, held_out = pictures(options.count or COUNT, SEED), pictures(options.held_out, HELD_OUT_SEED)
    return Reading(
        [_example(options.control, SEED, index, picture, _WORDINGS) for index, picture in enumerate(train)],
        [_example(options.control, HELD_OUT_SEED, index, picture, 1) for index, picture in enumerate(held_out)],
    )


def _example(kind: str, seed: int, index: int, picture: Picture, wordings: int) -> Example:
    """The map's irregularities and the wordings of the prompt follow from the picture's number."""
    name = f"{kind}-{seed}-{index:05d}"
    rng = random.Random(name)
    captions = (picture.prompt, *(training_prompt(picture, rng) for _ in range(wordings - 1)))
    drawn = _Drawn(f"{seed}-{index:05d}", lambda: picture.image)
    return Example(name, captions, drawn, _Drawn(name, partial(_map, kind, picture, name)))


@dataclass(frozen=True)
class _Drawn:
    """A picture that is drawn when it is wanted; what it shows follows from its name."""

    name: str
    draw: Callable[[], Pixels]
    far: bool = False

    @property
    def key(self) -> str:
        return self.name

    def facts(self) -> Facts:
        return Facts((SIZE, SIZE), self.name)

    def __call__(self) -> Pixels:
        return self.draw()


def _map(kind: str, picture: Picture, name: str) -> Pixels:
    return control_map(kind, picture, random.Random(name))
