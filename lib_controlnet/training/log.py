"""What a training tells: one JSON object a line in `log.jsonl`, and TensorBoard's or W&B's files where asked for.

Pages, commands and tests read the same lines, so whatever shows a training needs no connection to it.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from .config import TrainConfig
from .errors import TrainingError
from .records import LOG, read_log
from .state import write_whole
from .store import digest


class Board(Protocol):
    """A program that draws curves and pictures."""

    def numbers(self, values: Mapping[str, float], step: int) -> None: ...
    def picture(self, name: str, path: Path, step: int) -> None: ...
    def close(self) -> None: ...


class Log:
    """Appends to `folder`/log.jsonl. `kept`: lines of steps after it are dropped (they are trained again)."""

    def __init__(self, folder: Path, kept: int, boards: Sequence[Board] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._boards = boards
        path = folder / LOG
        lines = [line for line in read_log(folder) if line.get("step", 0) <= kept]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_whole(path, lambda partial: partial.write_text(text, "utf-8"))
        self._stream = path.open("a", encoding="utf-8")

    def write(self, event: str, **values: Any) -> None:
        """Add a line. Numbers of a line with `step` go to the boards too. Raises TrainingError on a full disk."""
        try:
            self._stream.write(json.dumps({"event": event, **values, "time": round(time.time(), 3)}) + "\n")
            self._stream.flush()
        except OSError as error:
            raise TrainingError("the log cannot be written", field="output", found=str(error),
                                remedy="make room on the disk and go on with --resume") from error  # fmt: skip
        if "step" not in values:
            return
        numbers = {f"{event}/{key}": value for key, value in values.items() if isinstance(value, int | float)}
        numbers.pop(f"{event}/step")
        for board in self._boards if numbers else ():
            board.numbers(numbers, values["step"])

    def picture(self, path: Path, step: int) -> None:
        """The grid of samples of a look."""
        for board in self._boards:
            board.picture("samples", path, step)

    def close(self) -> None:
        self._stream.close()
        for board in self._boards:
            board.close()


def boards_of(config: TrainConfig, kept: int) -> list[Board]:
    """Those that the configuration asks for."""
    found: list[Board] = []
    if config.output.tensorboard:
        found.append(TensorBoard(config.output.folder, kept))
    if config.output.wandb != "off":
        found.append(WandB(config))
    return found


class TensorBoard:
    """Its files in `folder`/tensorboard."""

    def __init__(self, folder: Path, kept: int) -> None:
        self._writer = board_writer()(str(folder / "tensorboard"), purge_step=kept + 1)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, path: Path, step: int) -> None:
        with Image.open(path) as picture:
            self._writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases in `folder`/wandb; offline, nothing leaves the computer until `wandb sync`."""

    def __init__(self, config: TrainConfig) -> None:
        output, self._package = config.output, wandb_package()
        self._run: Any = self._package.init(
            project="controlnet", name=output.name, dir=str(output.folder), mode=output.wandb, resume="allow",
            id=digest(str(output.folder.resolve()), output.name), config=config.as_json(),
        )  # fmt: skip

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, path: Path, step: int) -> None:
        self._run.log({name: self._package.Image(str(path))}, step=step)

    def close(self) -> None:
        self._run.finish()


def wandb_package() -> Any:
    """Raises TrainingError without the package."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise TrainingError(
            "Weights & Biases needs the package wandb",
            field="output.wandb",
            found=str(error),
            remedy='install it with "pip install wandb", or set wandb = "off"; log.jsonl is written anyway',
        ) from error


def board_writer() -> Any:
    """TensorBoard's class that writes. Raises TrainingError without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            "TensorBoard logs need the package tensorboard",
            field="output.tensorboard",
            found=str(error),
            remedy='install it with "pip install tensorboard", or set tensorboard = false; log.jsonl is written anyway',
        ) from error
    return SummaryWriter
