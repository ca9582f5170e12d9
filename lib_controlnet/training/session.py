"""One training from its configuration to its files: check, encode, train, look, save, export."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import filelock
import torch
from accelerate import Accelerator

from .adherence import Convergence, Point, find_convergence, half_way
from .base import Base, load_base, new_control
from .cache import EncodedData, Preprocess
from .check import DataReport
from .config import TrainConfig
from .errors import Stopped, TrainingError
from .examples import Reader
from .export import file_sha256
from .intake import Intake
from .looks import Look, Observer
from .needed import check_needed
from .planning import Plan, plan
from .records import STOP
from .resuming import check_changes
from .reward import check_reward, reward_for
from .room import Room
from .run import Run
from .shares import Helpers
from .state import load_state, states
from .trainer import ControlTrainer, Progress

_BYTES_OF_STATE = 16


class Watcher(Protocol):
    """Who looks on. Every method returns at once; `stopping` is asked between all that takes long."""

    def stage(self, what: str, done: int, total: int) -> None: ...
    def data(self, report: DataReport) -> None: ...
    def say(self, sentence: str) -> None: ...
    def begin(self, step: int, steps: int) -> None: ...
    def step(self, progress: Progress) -> None: ...
    def look(self, look: Look, convergence: Convergence | None) -> None: ...
    def stopping(self) -> bool: ...


@dataclass(frozen=True)
class Outcome:
    """`loss`: mean over the last 100 steps. `adherence`: None where no samples were drawn. `locked_unchanged`: the bits
    of the locked weights are those from before. `adherence_mismatched`: of samples drawn with other pictures' maps;
    `adherence_without`: without control; `half_way`: the step from which on maps bring half of what they can."""

    steps: int
    loss: float | None
    locked_unchanged: bool
    adherence: float | None
    adherence_mismatched: float | None
    adherence_without: float | None
    ceiling: float | None
    convergence: Convergence | None
    half_way: int | None
    stopped: bool
    seconds: float
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Prepared:
    """`pairs`: of which latents, prompts and maps are in the cache. `made`: how many of each were not there before."""

    pairs: int
    made: Mapping[str, int]
    stopped: bool
    seconds: float


class TrainingSession:
    """Owner of one training. `extra_readers`: further data formats; `preprocess` runs a preprocessor by name. `helpers`
    encode in place of this process.

    `accept_changes`: a resumed training may go on with settings or data that make another run of it. `planned`: what it
    takes of the memory is counted and said first.
    """

    def __init__(
        self, config: TrainConfig, watcher: Watcher, preprocess: Preprocess,
        extra_readers: Mapping[str, Reader] | None = None, *, resume: bool = False, accept_changes: bool = False,
        planned: bool = True, helpers: Helpers | None = None,
    ) -> None:  # fmt: skip
        self.config, self.watcher, self.folder = config, watcher, config.output.folder
        self.preprocess = preprocess
        self._resume, self._accept, self._planned = resume, accept_changes, planned
        self.plan: Plan | None = None
        self.accelerator = Accelerator(mixed_precision=config.train.precision)
        self.curve: list[Point] = []
        self.floor: float | None = None
        self.half_way: int | None = None
        self.losses: list[float] = []
        self.marks: dict[str, Any] = {}
        self.convergence: Convergence | None = None
        self.intake = Intake(self, preprocess, extra_readers, helpers)

    def run(self) -> Outcome:
        """Train to the end, or until the watcher wants to stop; either way the state is saved.

        Raises TrainingError, ModelFileError or PreprocessorError with all that was trained on the disk.
        """
        began = time.monotonic()
        try:
            with self._alone():
                return self._run(began)
        except Stopped:  # before the first step: what was encoded is kept
            self.agree(True)
            return Outcome(0, None, True, None, None, None, None, None, None, True, time.monotonic() - began, {})

    def prepare(self) -> Prepared:
        """Check the data, encode what the steps will see, of a stream window by window, and train nothing. What is in
        the cache is not made again, and a training finds all of it there. Raises as `run` does.
        """
        began, stopped = time.monotonic(), False
        try:
            with self._alone():
                check_needed(self.config)
                self.intake.begin(None)
                self.pause_if_asked()
                base = load_base(self.config.base)
                self.intake.encode_ahead(base, self._room(base))
        except Stopped:
            stopped = self.agree(True)
        return Prepared(self.intake.ready, dict(self.intake.made), stopped, time.monotonic() - began)

    def _run(self, began: float) -> Outcome:
        check_needed(self.config)
        check_reward(self.config)
        stored = load_state(self.folder) if self._resume else None
        if self._planned and stored is None and self.accelerator.is_main_process:
            self.plan = plan(self.config)
            self.watcher.say(str(self.plan))
        self.intake.begin(stored)
        self.pause_if_asked()
        base = load_base(self.config.base)
        if self.config.train.zero_terminal_snr:
            base = dataclasses.replace(base, noise=base.noise.ending_in_noise())
        self._begin_folder(base)
        self.accelerator.wait_for_everyone()
        self.marks = self.intake.marks(file_sha256(self.config.base.checkpoint))
        if stored is not None:
            self._check_changes(stored)
        data, held_out = self.intake.encode(base, self._room(base), 0 if stored is None else int(stored["step"]))
        control = new_control(base, self.config)
        reward = reward_for(self.config, base.autoencoder)
        trainer = ControlTrainer(base.unet, control, data, base.noise, self.config.train, self.accelerator, reward)
        trainer.turn_to(data, self.intake.first, self.intake.window)
        if stored is not None:
            trainer.restore(stored)
            self.curve = [Point(int(look[0]), *map(float, look[1:])) for look in stored["curve"] if len(look) > 2]
            self.floor = stored.get("floor")
            self.losses = [float(loss) for loss in stored["losses"]]
        observer = self._observer(base, held_out)
        if observer is not None and self.curve:  # of a training that goes on
            self.half_way = half_way(self.curve, self.floor or 0.0, observer.ceiling)
            self.convergence = find_convergence(self.curve, self.floor or 0.0, observer.ceiling)
        run = Run(self, base, trainer, observer)
        locked = _digest(run.locked())
        try:
            stopped = run.train()
        finally:
            run.close()
        return Outcome(
            steps=trainer.step,
            loss=sum(self.losses) / len(self.losses) if self.losses else None,
            locked_unchanged=_digest(run.locked()) == locked,
            adherence=self.curve[-1].matched if self.curve else None,
            adherence_mismatched=self.curve[-1].mismatched if self.curve else None,
            adherence_without=self.floor,
            ceiling=None if observer is None else observer.ceiling,
            convergence=self.convergence,
            half_way=self.half_way,
            stopped=stopped,
            seconds=time.monotonic() - began,
            files=run.products.files,
        )

    def pause_if_asked(self) -> None:
        """Raises Stopped where the watcher, or the file by which pages ask, wants the training to end."""
        if self.stopping():
            raise Stopped

    def stage(self, what: str, done: int, total: int) -> None:
        """Tells the watcher."""
        self.watcher.stage(what, done, total)

    def stopping(self) -> bool:
        """Whether this process was asked to end the training."""
        return (self.folder / STOP).exists() or self.watcher.stopping()

    def agree(self, wanted: bool) -> bool:
        """All processes stop after the same step; then the file that asked for it goes."""
        accelerator = self.accelerator
        if accelerator.num_processes > 1:
            total: Any = accelerator.reduce(torch.tensor(float(wanted), device=accelerator.device), "sum")
            wanted = bool(total.item() > 0)
        if wanted and accelerator.is_main_process:
            (self.folder / STOP).unlink(missing_ok=True)
        return wanted

    def _alone(self) -> Any:
        """The output folder for this training alone; held until the process ends or leaves the block.

        Raises TrainingError where another one has it, as of processes that were to be one training and are not.
        """
        launched = int(os.environ.get("WORLD_SIZE", "1") or 1)
        if launched != self.accelerator.num_processes:
            raise TrainingError(
                "the processes of this training do not know each other",
                field="accelerate",
                found=f"{launched} were launched, this one knows of {self.accelerator.num_processes}",
                remedy="run accelerate config once, or launch with --multi_gpu; or start a single process",
            )
        _make_folder(self.folder)
        if not self.accelerator.is_main_process:
            return _Nothing()
        lock = filelock.FileLock(str(self.folder / ".training.lock"))
        try:
            return lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise TrainingError(
                "another training is writing into this folder",
                field="output.folder",
                found=str(self.folder),
                remedy="wait for it, stop it, or choose another folder; several processes are launched by accelerate "
                "with --multi_gpu or after accelerate config",
            ) from error

    def _begin_folder(self, base: Base) -> None:
        """Room for states, models and cache; an earlier training in the folder is moved aside unless resumed."""
        if not self.accelerator.is_main_process:
            return
        free = shutil.disk_usage(self.folder).free
        copied = sum(p.numel() for p in base.unet.input_blocks.parameters())
        wanted = copied * _BYTES_OF_STATE * (self.config.output.keep + 2)
        if free < wanted:
            raise TrainingError(
                "the disk has no room for the states of this training",
                field="output.folder",
                found=f"{free >> 20} MB free, about {wanted >> 20} MB wanted",
                remedy="make room, lower output.keep, or choose another folder",
            )
        if not self._resume and states(self.folder):
            _move_aside(self.folder)

    def _check_changes(self, stored: dict[str, Any]) -> None:
        for sentence in check_changes(stored, self.config.as_json(), self.marks, self._accept):
            self.watcher.say(sentence)

    def supply(self, base: Base, trainer: ControlTrainer) -> list[dict[str, Any]]:
        """Of a stream the next window, where the present one is used up. Returns what the log is to know of it."""
        while trainer.used_up:
            assert trainer.until is not None
            self.intake.advance(trainer.until)
            data, _ = self.intake.encode(base, self._room(base), trainer.step)
            self.marks |= self.intake.marks(self.marks["base"])
            if data.examples:  # else none of the window's can be read to its end
                trainer.turn_to(data, self.intake.first, self.intake.window)
        news, self.intake.news = self.intake.news, []
        return news

    def _observer(self, base: Base, shown: EncodedData) -> Observer | None:
        if not self.accelerator.is_main_process or not self.config.samples.every or not shown.examples:
            return None
        made = Observer(base, shown, self.config, self.folder / "samples", self.preprocess, self._room(base))
        made.floor = self.floor
        return made

    def _room(self, base: Base) -> Room:
        deep = base.unet.config.adm_channels is not None
        return Room(self.accelerator.device, self.config.train.precision, deep)


class _Nothing:
    """A block that needs no lock: the first process has it."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError("the output folder cannot be made", field="output.folder", found=str(error),
                            remedy="choose another folder") from error  # fmt: skip


def _digest(weights: Iterable[torch.Tensor]) -> str:
    """Hash of the bits of `weights`."""
    digest = hashlib.blake2b()
    for value in weights:
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _move_aside(folder: Path) -> None:
    """An earlier training's states, log and samples go to `earlier-N`; the cache stays."""
    number = 1 + sum(1 for _ in folder.glob("earlier-*"))
    aside = folder / f"earlier-{number}"
    aside.mkdir()
    for path in list(folder.iterdir()):
        if path.name not in ("cache", ".training.lock", aside.name) and not path.name.startswith("earlier-"):
            path.rename(aside / path.name)
