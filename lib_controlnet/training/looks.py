"""A look at a training: pictures drawn from held-out conditions, and how well they follow them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..engine.device_memory import is_out_of_memory
from .adherence import Point, adherence
from .base import Base
from .cache import EncodedData, Onlooker, Preprocess
from .chance import generator_of
from .config import COMPARED, TrainConfig
from .errors import Stopped
from .kinds import Control
from .pictures import Pixels, as_pixels, as_tensor, fitted
from .room import Room
from .sampling import Condition, Guide, sample
from .state import write_whole

LINES = "canny"
"""Looks at pictures whose maps no preprocessor makes: their lines are compared with those of the true pictures."""
_CAPTION_STREAM = 3
_SHOWN = 8


@dataclass(frozen=True)
class Look:
    """After `step` optimizer steps: mean `adherence` in 0..1 of what was drawn with its own map, `mismatched` of what
    was drawn with another picture's, and the grid's file."""

    step: int
    adherence: float
    mismatched: float
    grid: Path

    @property
    def point(self) -> Point:
        return Point(self.step, self.adherence, self.mismatched)


class Observer:
    """Draws the held-out conditions at fixed seeds; conditions, reconstructions and reference maps are made once."""

    def __init__(
        self, base: Base, held_out: EncodedData, config: TrainConfig, folder: Path, preprocess: Preprocess, room: Room
    ) -> None:
        self._base, self._data, self._config, self._folder, self._room = base, held_out, config, folder, room
        self._preprocess = preprocess
        own = config.data.preprocessor
        self._preprocessor = config.samples.preprocessor or (own if own != "none" else LINES)
        self._measure = config.samples.measure
        if self._measure == "auto":
            self._measure = _kind(preprocess, self._preprocessor)
        self._conditions = {index: held_out.hint(index) for group in held_out.groups for index in group}
        self._at_once: dict[tuple[int, int], int] = {}
        self._reconstructions: dict[int, Pixels] = {}
        for index in self._conditions:
            latents = held_out.batch(torch.tensor([index]), generator_of(0, _CAPTION_STREAM)).latents
            self._reconstructions[index] = as_pixels(room.decode(base.autoencoder, latents))[0]
        base.autoencoder.to("cpu")
        pictures = {index: held_out.picture(index) for index in self._conditions}
        made_by_it = self._preprocessor == own
        self._wanted = self._conditions if made_by_it else {i: self._map(p) for i, p in pictures.items()}
        self._others = self._mismatched(held_out)
        self.ceiling = self._score(self._reconstructions)
        self.floor: float | None = None

    @property
    def prompts(self) -> list[str]:
        """Of the grid's rows."""
        sizes = [self._conditions[index].shape for index in self._conditions]
        shown = [i for i, shape in zip(self._conditions, sizes, strict=True) if shape == sizes[0]][:_SHOWN]
        return [self._data.examples[index].captions[0] for index in shown]

    def _mismatched(self, held_out: EncodedData) -> dict[int, Pixels]:
        """For each condition that of another picture, at its size; of a single one itself, upside down."""
        indices = list(self._conditions)
        if len(indices) == 1:
            return {index: np.ascontiguousarray(self._conditions[index][::-1, ::-1]) for index in indices}
        turned = [*indices[len(indices) // 2 :], *indices[: len(indices) // 2]]
        made: dict[int, Pixels] = {}
        for index, other in zip(indices, turned, strict=True):
            height, width = self._conditions[index].shape[:2]
            made[index] = fitted(self._conditions[other], (width, height))
        return made

    def look(self, control: Control, step: int, onlooker: Onlooker) -> Look:
        """Draw all held-out conditions with `control` as it is, write the grid, measure.

        Raises Stopped where the onlooker wants it.
        """
        if self.floor is None:
            self.floor = self._score(self._draw_all(control, None, onlooker))
        made = self._draw_all(control, self._conditions, onlooker)
        others = self._draw_all(control, self._others, onlooker)
        self._base.autoencoder.to("cpu")
        return Look(step, self._score(made), self._score(others), self._write_grid(made, step))

    def _draw_all(self, control: Control, hints: Mapping[int, Pixels] | None, onlooker: Onlooker) -> dict[int, Pixels]:
        """Samples of all held-out pairs under `hints`; None: without control."""
        made: dict[int, Pixels] = {}
        for group in self._data.groups:
            left = list(group)
            while left:
                drawn = self._draw_some(control, hints, left, onlooker)
                left = left[len(drawn) :]
                made |= drawn
                onlooker.stage("samples", len(made), len(self._conditions))
        return made

    def _draw_some(
        self, control: Control, hints: Mapping[int, Pixels] | None, indices: list[int], onlooker: Onlooker
    ) -> dict[int, Pixels]:
        """The first of `indices`: as many as there is room for, fewer from then on where there was not."""
        height, width = self._conditions[indices[0]].shape[:2]
        size = width, height
        if size not in self._at_once:
            self._at_once[size] = self._room.samples_at_once(self._base, control, size, len(indices))
        count = min(self._at_once[size], len(indices))
        try:
            return self._draw(control, hints, indices[:count], onlooker)
        except (RuntimeError, MemoryError) as error:
            if count == 1 or not is_out_of_memory(error):
                raise
        self._room.give_back()
        self._at_once[size] = count // 2
        return self._draw_some(control, hints, indices, onlooker)

    @torch.no_grad()
    def _draw(
        self, control: Control, hints: Mapping[int, Pixels] | None, group: list[int], onlooker: Onlooker
    ) -> dict[int, Pixels]:
        options = self._config.samples
        batch = self._data.batch(torch.tensor(group), generator_of(0, _CAPTION_STREAM)).to(self._room.device)

        def after() -> None:
            if onlooker.stopping():
                raise Stopped

        latents = sample(
            self._base.unet,
            Condition(batch.context, batch.empty_context, batch.y, batch.empty_y),
            self._base.noise,
            (batch.latents.shape[2], batch.latents.shape[3]),
            seed=[options.seed + index for index in group],
            steps=options.steps,
            cfg=options.cfg,
            guide=None if hints is None else self._guide(control, [hints[index] for index in group]),
            after=after,
        )
        made: list[Pixels] = []
        for portion in latents.split(self._room.pictures_at_once(self._base.autoencoder, _size(latents), len(latents))):
            made += as_pixels(self._room.decode(self._base.autoencoder, portion))
        return dict(zip(group, made, strict=True))

    def _guide(self, control: Control, hints: list[Pixels]) -> Guide:
        given = as_tensor(hints)
        if control.latent_hints:
            given = self._room.encode(self._base.autoencoder, given)
        return Guide(control, given.to(self._room.device))

    def _score(self, made: dict[int, Pixels]) -> float:
        scores = [adherence(self._map(made[index]), wanted, self._measure) for index, wanted in self._wanted.items()]
        return round(float(np.mean(scores)), 4)

    def _map(self, picture: Pixels) -> Pixels:
        options = self._config.data
        params = options.preprocessor_params if self._preprocessor == options.preprocessor else ()
        pixels = self._preprocess(self._preprocessor, picture, min(picture.shape[:2]), params)
        return fitted(pixels[..., :3], (picture.shape[1], picture.shape[0]))

    def _write_grid(self, made: dict[int, Pixels], step: int) -> Path:
        """Columns: condition, reconstruction, sample; one row a held-out pair, of the first group's size."""
        size = next(iter(made.values())).shape
        shown = [index for index in made if made[index].shape == size][:_SHOWN]
        rows = [np.concatenate([self._conditions[i], self._reconstructions[i], made[i]], axis=1) for i in shown]
        path = self._folder / f"step-{step:06d}.png"
        grid = Image.fromarray(np.concatenate(rows, axis=0))
        write_whole(path, lambda partial: grid.save(partial, "PNG"))
        return path


def _kind(preprocess: Preprocess, name: str) -> str:
    """What the maps show, where `preprocess` can say it; skeletons are compared as the lines that they are."""
    kind = getattr(preprocess, "kind", None)
    found = "lines" if kind is None else str(kind(name))
    return found if found in COMPARED else "lines"


def _size(latents: torch.Tensor) -> tuple[int, int]:
    """(width, height) of the pictures."""
    return 8 * latents.shape[3], 8 * latents.shape[2]
