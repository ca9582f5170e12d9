"""What a training tells: one JSON object a line in `log.jsonl`, and TensorBoard's files where they are asked for.

Pages, commands and tests read the same lines, so whatever shows a training needs no connection to it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from .errors import TrainingError
from .records import LOG, read_log
from .state import write_whole


class Log:
    """Appends to `folder`/log.jsonl. `kept`: lines of steps after it are dropped (they are trained again)."""

    def __init__(self, folder: Path, kept: int, tensorboard: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._board = board_writer()(str(folder / "tensorboard"), purge_step=kept + 1) if tensorboard else None
        path = folder / LOG
        lines = [line for line in read_log(folder) if line.get("step", 0) <= kept]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_whole(path, lambda partial: partial.write_text(text, "utf-8"))
        self._stream = path.open("a", encoding="utf-8")

    def write(self, event: str, **values: Any) -> None:
        """Add a line. Numbers of a line with `step` go to TensorBoard too. Raises TrainingError on a full disk."""
        try:
            self._stream.write(json.dumps({"event": event, **values, "time": round(time.time(), 3)}) + "\n")
            self._stream.flush()
        except OSError as error:
            raise TrainingError("the log cannot be written", field="output", found=str(error),
                                remedy="make room on the disk and go on with --resume") from error  # fmt: skip
        if self._board is None or "step" not in values:
            return
        for key, value in values.items():
            if key != "step" and isinstance(value, int | float):
                self._board.add_scalar(f"{event}/{key}", value, values["step"])

    def close(self) -> None:
        self._stream.close()
        if self._board is not None:
            self._board.close()


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
