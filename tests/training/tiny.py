"""A whole training in tiny: a random checkpoint of SD1's structure, pictures of 64 pixels, a watcher that remembers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from lib_controlnet.training.config import TrainConfig, config_from
from lib_controlnet.training.session import TrainingSession

SIDE = 64


class Memory:
    """A watcher. `stop_after`: it wants to stop after so many steps."""

    def __init__(self, stop_after: int = 0) -> None:
        self.losses: list[float] = []
        self.looks: list[Any] = []
        self.reports: list[Any] = []
        self.stages: list[tuple[str, int, int]] = []
        self.said: list[str] = []
        self._stop_after = stop_after

    def stage(self, what: str, done: int, total: int) -> None:
        self.stages.append((what, done, total))

    def data(self, report: Any) -> None:
        self.reports.append(report)

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def begin(self, step: int, steps: int) -> None:
        self.first = step

    def step(self, progress: Any) -> None:
        self.losses.append(progress.loss)

    def look(self, look: Any, convergence: Any) -> None:
        self.looks.append(look)

    def stopping(self) -> bool:
        return 0 < self._stop_after <= len(self.losses)


def draw(number: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a disc and its canny map."""
    chance = np.random.default_rng(number)
    picture = np.full((side, side, 3), chance.integers(0, 90, 3), np.uint8)
    centre = tuple(int(x) for x in chance.integers(side // 3, 2 * side // 3, 2))
    cv2.circle(picture, centre, side // 4, tuple(int(x) for x in chance.integers(160, 255, 3)), -1)
    return picture, np.repeat(cv2.Canny(picture, 100, 200)[..., None], 3, axis=2)


def make_pairs(folder: Path, count: int = 6, side: int = SIDE) -> Path:
    """The paper's layout."""
    lines = []
    for part in ("source", "target"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture, edges = draw(number, side)
        Image.fromarray(picture).save(folder / "target" / f"{number}.png")
        Image.fromarray(edges).save(folder / "source" / f"{number}.png")
        lines.append({"source": f"source/{number}.png", "target": f"target/{number}.png", "prompt": f"disc {number}"})
    (folder / "prompt.json").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


def config(checkpoint: Path, data: Path, out: Path, /, **changes: dict[str, Any]) -> TrainConfig:
    """Eight steps at 64 pixels; `changes` are keys of sections."""
    tables: dict[str, dict[str, Any]] = {
        "base": {"checkpoint": checkpoint, "hint_widths": [8, 8, 8, 16]},
        "data": {"folder": data, "resolution": SIDE, "held_out": 2, "preprocessor": "canny"},
        "train": {"steps": 8, "batch_size": 2, "learning_rate": 1e-3, "average_decay": 0.9},
        "samples": {"every": 0, "steps": 2},
        "output": {"folder": out, "name": "made", "save_every": 4},
        "control": {},
    }
    for section, values in changes.items():
        tables[section] |= values
    return config_from(tables, Path())


def canny(name: str, picture: np.ndarray, resolution: int, settings: Sequence[float]) -> np.ndarray:
    """The preprocessor canny, at the picture's size."""
    assert name == "canny"
    return np.repeat(cv2.Canny(picture, 100, 200)[..., None], 3, axis=2)


def session(of: TrainConfig, watcher: Memory | None = None, **options: Any) -> TrainingSession:
    return TrainingSession(of, watcher or Memory(), canny, **{"planned": False, **options})
