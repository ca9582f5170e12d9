"""A look at a training: pictures drawn from held-out conditions, and how well they follow them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..nets.controlnet import ControlNet
from .adherence import adherence
from .base import Base
from .cache import EncodedData, Preprocess
from .chance import generator_of
from .config import TrainConfig
from .pictures import Pixels, as_pixels, fitted
from .sampling import Condition, Guide, sample
from .state import write_whole

_CAPTION_STREAM = 3
_AT_ONCE = 8
_SHOWN = 8


@dataclass(frozen=True)
class Look:
    """After `step` optimizer steps: mean `adherence` in 0..1 and the grid's file."""

    step: int
    adherence: float
    grid: Path


class Observer:
    """Draws the held-out conditions at fixed seeds; conditions, reconstructions and reference maps are made once."""

    def __init__(
        self, base: Base, held_out: EncodedData, config: TrainConfig, folder: Path, preprocess: Preprocess,
        device: torch.device,
    ) -> None:  # fmt: skip
        self._base, self._data, self._config, self._folder, self._device = base, held_out, config, folder, device
        self._preprocess = preprocess
        own = config.data.preprocessor
        self._preprocessor = config.samples.preprocessor or own
        self._groups = [group[i : i + _AT_ONCE] for group in held_out.groups for i in range(0, len(group), _AT_ONCE)]
        self._conditions = {index: held_out.hint(index) for group in self._groups for index in group}
        base.autoencoder.to(device)
        self._reconstructions: dict[int, Pixels] = {}
        for group in self._groups:
            latents = held_out.batch(torch.tensor(group), generator_of(0, _CAPTION_STREAM)).latents.to(device)
            made = as_pixels(base.autoencoder.decode(latents))
            self._reconstructions |= dict(zip(group, made, strict=True))
        pictures = {index: held_out.picture(index) for index in self._conditions}
        made_by_it = self._preprocessor == own
        self._wanted = self._conditions if made_by_it else {i: self._map(p) for i, p in pictures.items()}
        self.ceiling = self._score(self._reconstructions)

    def look(self, control: ControlNet, step: int, tell: Callable[[int, int], None] | None = None) -> Look:
        """Draw all held-out conditions with `control` as it is, write the grid, measure. `tell`: (done, all)."""
        made: dict[int, Pixels] = {}
        for group in self._groups:
            made |= self._draw(control, group)
            if tell is not None:
                tell(len(made), len(self._conditions))
        return Look(step, self._score(made), self._write_grid(made, step))

    @torch.no_grad()
    def _draw(self, control: ControlNet, group: list[int]) -> dict[int, Pixels]:
        options = self._config.samples
        batch = self._data.batch(torch.tensor(group), generator_of(0, _CAPTION_STREAM)).to(self._device)
        only_mid = self._config.train.only_mid_control
        latents = sample(
            self._base.unet,
            Condition(batch.context, batch.empty_context, batch.y, batch.empty_y),
            self._base.noise,
            (batch.latents.shape[2], batch.latents.shape[3]),
            seed=options.seed + group[0],
            steps=options.steps,
            cfg=options.cfg,
            guide=Guide(control, batch.hints, only_mid_control=only_mid),
        )
        return dict(zip(group, as_pixels(self._base.autoencoder.decode(latents)), strict=True))

    def _score(self, made: dict[int, Pixels]) -> float:
        measure = self._config.samples.measure
        scores = [adherence(self._map(made[index]), wanted, measure) for index, wanted in self._wanted.items()]
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
