"""Trainings in processes of their own, for pages and APIs: started, watched through their files, stopped, gone on.

The WebUI's process never trains. A crash, a full GPU or a reload of the page cannot take the other side with it, and
a training that outlives the WebUI is found again by its folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .captions import Caption, Captioning, no_interrogator
from .check import DataReport, check_data, contact_sheet, split, usable
from .config import TrainConfig, config_from
from .errors import TrainingError
from .examples import Reading, Remembered
from .lints import with_lints
from .needed import check_names, check_needed
from .pictures import Pixels
from .records import STOP, read_log, write_toml
from .reward import check_reward
from .status import State, Status
from .stream import beginning

_COMMAND = "import sys; from standalone.train.cli import main; sys.exit(main(sys.argv[1:]))"
_CURVE_POINTS = 400
_STOPPED = 130
_RECENT = 50


class TrainingJobs:
    """One training at a time. `root`: the repository, whose command is run. `weights`: folders in which preprocessors
    look for their weights. `caption`: the host's interrogator; it is called from a thread. `preprocessor`: finds one by
    its name, and raises where there is none."""

    def __init__(
        self,
        root: Path,
        weights: Callable[[], Sequence[Path]] = tuple,
        caption: Caption | None = None,
        preprocessor: Callable[[str], object] | None = None,
    ) -> None:
        self._root, self._weights, self._caption, self._preprocessor = root, weights, caption, preprocessor
        self._process: subprocess.Popen[bytes] | None = None
        self._captioning: Captioning | None = None
        self._config: TrainConfig | None = None

    def check(self, tables: Mapping[str, Any]) -> tuple[DataReport, Pixels | None]:
        """The data's report and contact sheet, nothing started. Raises TrainingError for settings that are wrong."""
        config = self._read(tables)
        reading = beginning(config.data)
        report = self._look(reading, config)
        shown = [] if report.problems else usable(reading, report).examples
        return report, contact_sheet(shown) if shown else None

    def start(self, tables: Mapping[str, Any], *, resume: bool = False) -> Status:
        """Check the settings and the data and start; captions that lack are written first, meanwhile.

        Raises TrainingError, also where a training is running.
        """
        if self.status().state == "running":
            raise TrainingError("a training is running already", field="train", remedy="stop it first")
        config = self._read(tables)
        reading = beginning(config.data)
        self._look(reading, config).raise_problems()
        self._config, self._process, self._captioning = config, None, None
        if not reading.to_caption:
            self._launch(config, resume)
            return self.status()
        if self._caption is None:
            raise no_interrogator(reading.to_caption)
        self._captioning = Captioning(
            reading.to_caption, config.data.caption_extension, self._caption, lambda: self._launch(config, resume)
        )
        self._captioning.start()
        return self.status()

    def _look(self, reading: Reading, config: TrainConfig) -> DataReport:
        """What the training itself will say of the data."""
        check_needed(config)
        check_reward(config)
        if self._preprocessor is not None:
            check_names(config, self._preprocessor)
        remembered = Remembered(config.output.folder / "cache" / "seen.db")
        report = check_data(reading, config.data, None, remembered)
        if config.output.folder.is_dir():
            remembered.keep()
        if len(report.problems) > config.data.pass_over * len(reading.examples) * bool(config.data.stream):
            return report
        warnings = (*report.warnings, *(f"{problem}: passed over" for problem in report.problems))
        report = dataclasses.replace(report, problems=(), warnings=warnings)
        return with_lints(report, *split(usable(reading, report), config.data), config)

    def _launch(self, config: TrainConfig, resume: bool) -> None:
        """Starts the training's process."""
        folder = config.output.folder
        path = folder / "config.toml"
        write_toml(path, config.as_json())
        (folder / STOP).unlink(missing_ok=True)
        line = [sys.executable, "-c", _COMMAND, str(path), "--json", "--quiet", *(["--resume"] if resume else [])]
        line += [f"--weights={weights}" for weights in self._weights()]
        paths = os.pathsep.join(filter(None, [str(self._root), os.environ.get("PYTHONPATH")]))
        with (folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": paths},
                cwd=self._root,
                start_new_session=True,
            )

    def stop(self) -> Status:
        """Ask the training to end after its step, with everything saved; `start(..., resume=True)` goes on."""
        if self._config is not None and self.status().state == "running":
            if self._process is None and self._captioning is not None:
                self._captioning.stop()
            else:
                (self._config.output.folder / STOP).touch()
        return self.status()

    def status(self) -> Status:
        """Where the training is, from its log."""
        if self._config is None:
            return Status("idle")
        if self._process is None:
            return self._before(self._config)
        folder = self._config.output.folder
        code = self._process.poll()
        state: State = "running"
        if code is not None:
            state = "finished" if code == 0 else "stopped" if code == _STOPPED else "failed"
        lines = list(read_log(folder))
        steps = [line for line in lines if line["event"] == "step"]
        looks = [line for line in lines if line["event"] == "look"]
        found = [int(line["step"]) for line in lines if line["event"] == "convergence"]
        speed = _speed(steps)
        last = steps[-1] if steps else {}
        step, total = int(last.get("step", 0)), self._config.train.steps
        recent = [line["loss"] for line in steps[-_RECENT:]]
        model = folder / f"{self._config.output.name}.safetensors"
        return Status(
            state=state,
            folder=str(folder),
            name=self._config.output.name,
            step=step,
            steps=total,
            loss=sum(recent) / len(recent) if recent else None,
            rate=last.get("rate"),
            steps_per_second=speed,
            seconds_left=(total - step) / speed if speed and state == "running" else None,
            adherence=looks[-1]["adherence"] if looks else None,
            mismatched=looks[-1].get("mismatched") if looks else None,
            convergence=found[-1] if found else None,
            losses=tuple((line["step"], line["loss"]) for line in steps[:: len(steps) // _CURVE_POINTS + 1]),
            curve=tuple((line["step"], line["adherence"]) for line in looks),
            grid=str(folder / "samples" / looks[-1]["grid"]) if looks else "",
            model=str(model) if model.is_file() else "",
            error=_error(folder) if state == "failed" else "",
        )

    def _before(self, config: TrainConfig) -> Status:
        """The status while there is no process: captions are written, or something went wrong with them."""
        writing = self._captioning
        if writing is None:
            return Status("idle")
        state: State = "failed" if writing.error else "stopped" if writing.stopped else "running"
        return Status(
            state,
            folder=str(config.output.folder),
            name=config.output.name,
            steps=config.train.steps,
            error=writing.error,
            captions=(writing.done, len(writing.pictures)),
        )

    def wait(self, seconds: float) -> Status:
        """The status when the training has ended, or after `seconds`."""
        end = time.monotonic() + seconds
        while self.status().state == "running" and time.monotonic() < end:
            time.sleep(0.1)
        return self.status()

    def _read(self, tables: Mapping[str, Any]) -> TrainConfig:
        return config_from(tables, self._root)


def _speed(steps: list[dict[str, Any]]) -> float | None:
    """Steps a second over the last ones."""
    recent = steps[-_RECENT:]
    if len(recent) < 2:
        return None
    seconds = recent[-1]["time"] - recent[0]["time"]
    return (len(recent) - 1) / seconds if seconds > 0 else None


def _error(folder: Path) -> str:
    """What the command said last: its own sentence, or the last line of a traceback."""
    try:
        lines = (folder / "output.txt").read_text("utf-8", "replace").strip().splitlines()
    except OSError as error:
        return str(error)
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "error" in found:
            return str(found["error"])
    return lines[-1] if lines else "it ended without a word"
