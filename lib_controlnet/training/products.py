"""What a training leaves for its users: the model in the formats asked for, and the curve as a picture."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..loading.reader import read_weights
from ..loading.whole import UNET
from .adherence import Point
from .base import Base, architecture
from .card import Facts, write_card
from .config import TrainConfig
from .export import write_weights
from .kinds import Control, kind_named
from .trainer import ControlTrainer


class Products:
    """Files of one training. `files`: name -> path of what was written."""

    def __init__(self, config: TrainConfig, base: Base, trainer: ControlTrainer, marks: Mapping[str, Any]) -> None:
        self._config, self._base, self._trainer = config, base, trainer
        self.files: dict[str, Path] = {}
        self._marks = marks
        self._kind = kind_named(config.control.kind)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Control]:
        """The control as it would be used: with averaged weights where they are kept."""
        trainer = self._trainer
        averaged = contextlib.nullcontext() if trainer.average is None else trainer.average.applied()
        trainer.control.eval()
        with averaged:
            yield trainer.control
        trainer.control.train()

    def write(
        self, curve: Sequence[Point], measured: tuple[float | None, float | None] = (None, None),
        prompts: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """All formats with the weights of now, and the card. `measured`: adherence without control and of the true
        pictures; `prompts`: of the samples. Raises TrainingError where the disk refuses."""
        output = self._config.output
        metadata = self._metadata(curve)
        with self.in_use() as control:
            for name in output.formats:
                self.files |= self._kind.formats[name](control, output.folder / output.name, metadata)
            if not self._config.train.sd_locked:
                self.files["base"] = output.folder / f"{output.name}_base.safetensors"
                self._write_base(self.files["base"])
        self.files["log"] = output.folder / "log.jsonl"
        if curve:
            self.files["samples"] = output.folder / "samples" / f"step-{curve[-1].step:06d}.png"
        kind, pairs = architecture(self._base.unet.config), self._marks["pairs"]
        facts = Facts(
            kind, pairs, self._trainer.step, self.files, curve, *measured, self.files.get("samples"), prompts,
            self._marks["held_out_pairs"],
        )  # fmt: skip
        self.files["card"] = write_card(self._config, facts)

    def _write_base(self, path: Path) -> None:
        """The checkpoint with the decoder that was trained."""
        file = read_weights(self._base.path)
        weights = dict(file.weights)
        for key, value in self._base.unet.state_dict().items():
            if key.startswith(("output_blocks.", "out.")):
                weights[UNET + key] = value.detach().cpu().to(weights[UNET + key].dtype)
        write_weights(weights, path, file.metadata, torch.float16)

    def _metadata(self, curve: Sequence[Point]) -> dict[str, str]:
        """What the file says of itself: ModelSpec's keys, and under `controlnet.` what a loader or a person may ask."""
        config = self._config
        recipe = {key: value for key, value in config.as_json()["train"].items() if key != "steps"}
        recipe["steps"] = self._trainer.step
        metadata = {
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": f"{architecture(self._base.unet.config)}/{self._kind.modelspec}",
            "modelspec.title": config.output.title or config.output.name,
            "modelspec.license": config.output.license,
            "modelspec.resolution": f"{config.data.resolution}x{config.data.resolution}",
            "controlnet.kind": self._kind.id,
            "controlnet.type": config.output.control_type,
            "controlnet.preprocessor": config.data.preprocessor,
            "controlnet.base": config.base.checkpoint.name,
            "controlnet.base_sha256": self._marks["base"],
            "controlnet.recipe": json.dumps(recipe),
            "controlnet.start": "base" if config.base.start is None else config.base.start.name,
        }
        if curve:
            metadata["controlnet.adherence"] = str(curve[-1].matched)
            metadata["controlnet.adherence_mismatched"] = str(curve[-1].mismatched)
        return {key: value for key, value in metadata.items() if value}
