"""One training from its configuration to its files: check, encode, train, look, save, export."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from .adherence import Convergence, find_convergence
from .base import Base, load_base, new_control
from .cache import EncodedData, Preprocess
from .captions import no_interrogator
from .check import DataReport, check_data, split
from .config import TrainConfig
from .errors import NotFinite, TrainingError
from .log import Log
from .looks import Look, Observer
from .products import Products
from .readers import Reader, read_data
from .records import STOP
from .state import load_state, save_state, states
from .trainer import ControlTrainer, Progress

_LOSS_OVER = 100
_BYTES_OF_STATE = 16


class Watcher(Protocol):
    """Who looks on. Every method returns at once; `stopping` is asked after each step."""

    def stage(self, what: str, done: int, total: int) -> None: ...
    def data(self, report: DataReport) -> None: ...
    def begin(self, step: int, steps: int) -> None: ...
    def step(self, progress: Progress) -> None: ...
    def look(self, look: Look, convergence: Convergence | None) -> None: ...
    def stopping(self) -> bool: ...


@dataclass(frozen=True)
class Outcome:
    """`loss`: mean over the last 100 steps. `adherence`: None where no samples were drawn. `locked_unchanged`: the bits
    of the locked weights are those from before."""

    steps: int
    loss: float | None
    locked_unchanged: bool
    adherence: float | None
    adherence_without: float | None
    ceiling: float | None
    convergence: Convergence | None
    stopped: bool
    seconds: float
    files: Mapping[str, Path]


class TrainingSession:
    """Owner of one training. `extra_readers`: further data formats; `preprocess` runs a preprocessor by name."""

    def __init__(
        self, config: TrainConfig, watcher: Watcher, preprocess: Preprocess,
        extra_readers: Mapping[str, Reader] | None = None, *, resume: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.watcher, self.folder = config, watcher, config.output.folder
        self._preprocess, self._extra_readers, self._resume = preprocess, extra_readers, resume
        self.accelerator = Accelerator(mixed_precision=config.train.precision)
        self.curve: list[tuple[int, float]] = []
        self.losses: list[float] = []
        self._convergence: Convergence | None = None

    def run(self) -> Outcome:
        """Train to the end, or until the watcher wants to stop; either way the state is saved.

        Raises TrainingError, ModelFileError or PreprocessorError with all that was trained on the disk.
        """
        began = time.monotonic()
        train, held_out = self._prepare_data()
        base = load_base(self.config.base)
        if self.accelerator.is_main_process:
            self._begin_folder(base)
        self.accelerator.wait_for_everyone()
        data, shown = self._encode(base, train, held_out)
        control = new_control(base, self.config.base, self.config.train.seed)
        trainer = ControlTrainer(base.unet, control, data, base.noise, self.config.train, self.accelerator)
        self._go_on(trainer)
        run = _Run(self, base, trainer, shown)
        locked = _digest(run.locked())
        try:
            stopped = run.train()
        finally:
            run.close()
        return Outcome(
            steps=trainer.step,
            loss=sum(self.losses) / len(self.losses) if self.losses else None,
            locked_unchanged=_digest(run.locked()) == locked,
            adherence=self.curve[-1][1] if self.curve else None,
            adherence_without=self.curve[0][1] if self.curve else None,
            ceiling=run.observer.ceiling if run.observer else None,
            convergence=self._convergence,
            stopped=stopped,
            seconds=time.monotonic() - began,
            files=run.products.files,
        )

    def _prepare_data(self) -> tuple[list[Any], list[Any]]:
        reading = read_data(self.config.data, self._extra_readers)
        if reading.to_caption:
            raise no_interrogator(reading.to_caption)
        report = check_data(reading, self.config.data, lambda done, total: self.watcher.stage("check", done, total))
        self.watcher.data(report)
        report.raise_problems()
        return split(reading, self.config.data)

    def _begin_folder(self, base: Base) -> None:
        """Room for states, models and cache; an earlier training in the folder is moved aside unless resumed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise TrainingError("the output folder cannot be made", field="output.folder", found=str(error)) from error
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

    def _encode(self, base: Base, train: list[Any], held_out: list[Any]) -> tuple[EncodedData, EncodedData | None]:
        """The first process encodes, the others read what it wrote."""
        device = self.accelerator.device
        made: list[EncodedData] = []
        with self.accelerator.main_process_first():
            for name, part in (("train", train), ("held_out", held_out)):
                data = EncodedData(base, self.config.data, self.folder / "cache" / name, device, self._preprocess)
                data.encode(part, self.watcher.stage)
                data.release()
                made.append(data)
        wants_looks = self.config.samples.every > 0 and bool(held_out)
        return made[0], made[1] if wants_looks else None

    def _go_on(self, trainer: ControlTrainer) -> None:
        stored = load_state(self.folder) if self._resume else None
        if stored is None:
            return
        changed = changes(stored["config"], self.config.as_json())
        if changed:
            raise TrainingError(
                "the saved training had other settings",
                field="resume",
                found=", ".join(changed),
                remedy="go on with the settings it had (only steps may change), or start anew without --resume",
            )
        trainer.restore(stored)
        self.curve = [(int(step), float(value)) for step, value in stored["curve"]]
        self.losses = [float(loss) for loss in stored["losses"]]


class _Run:
    """The loop with everything that happens between its steps; only the first process writes and draws."""

    def __init__(
        self, session: TrainingSession, base: Base, trainer: ControlTrainer, shown: EncodedData | None
    ) -> None:
        self._session, self._trainer, self._config = session, trainer, session.config
        self._main = session.accelerator.is_main_process
        self.products = Products(session.config, base, trainer)
        self.observer: Observer | None = None
        self._log: Log | None = None
        self._saved = -1
        if not self._main:
            return
        self._log = Log(session.folder, trainer.step, session.config.output.tensorboard)
        self._log.write("begin", first=trainer.step, steps=session.config.train.steps, name=session.config.output.name)
        if shown is not None:
            device = session.accelerator.device
            base.unet.to(device)
            self.observer = Observer(base, shown, self._config, session.folder / "samples", session._preprocess, device)
            self._log.write("ceiling", value=self.observer.ceiling)

    def train(self) -> bool:
        """To the last step, True if the watcher stopped it before. The state is saved whatever ends the loop."""
        trainer, watcher = self._trainer, self._session.watcher
        watcher.begin(trainer.step, self._config.train.steps)
        if trainer.step == 0:
            self._look()
        stopped = False
        try:
            while trainer.step < self._config.train.steps and not stopped:
                self._after(trainer.train_step())
                stopped = self._agree(self._wants_stop()) and trainer.step < self._config.train.steps
        except NotFinite:
            self._save()
            raise
        if self._session.curve and self._session.curve[-1][0] != trainer.step and not stopped:
            self._look()
        self._save()
        self._tell("stopped" if stopped else "end", step=trainer.step)
        return stopped

    def locked(self) -> Iterable[torch.Tensor]:
        """Weights that must stay as they are."""
        return (value for value in self._trainer.unet.parameters() if not value.requires_grad)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def _after(self, progress: Progress) -> None:
        session = self._session
        session.losses = [*session.losses[1 - _LOSS_OVER :], progress.loss]
        self._tell("step", step=progress.step, loss=progress.loss, rate=progress.rate, norm=progress.gradient_norm)
        session.watcher.step(progress)
        every = self._config.samples.every
        if every and progress.step % every == 0:
            self._look()
        if progress.step % self._config.output.save_every == 0:
            self._save()

    def _look(self) -> None:
        if self.observer is None:
            return
        session, step = self._session, self._trainer.step
        with self.products.in_use() as control, session.accelerator.autocast():
            look = self.observer.look(control, step, lambda done, total: session.watcher.stage("samples", done, total))
        session.curve.append((step, look.adherence))
        found = find_convergence(session.curve, self.observer.ceiling)
        session._convergence = found
        self._tell("look", step=step, adherence=look.adherence, grid=look.grid.name)
        if found is not None and found.step == step:
            self._tell("convergence", step=step, after=found.after, value=found.value)
        session.watcher.look(look, found)

    def _save(self) -> None:
        """A state and the model as it is; nothing where this step is saved already."""
        session = self._session
        if not self._main or self._saved == self._trainer.step:
            return
        content = {
            **self._trainer.state(),
            "curve": [list(point) for point in session.curve],
            "losses": session.losses,
            "config": session.config.as_json(),
        }
        save_state(session.folder, self._trainer.step, content, self._config.output.keep)
        self.products.write(session.curve)
        self._saved = self._trainer.step
        self._tell("saved", step=self._trainer.step)

    def _tell(self, event: str, **values: Any) -> None:
        if self._log is not None:
            self._log.write(event, **values)

    def _wants_stop(self) -> bool:
        asked = self._session.folder / STOP
        if not asked.exists():
            return self._session.watcher.stopping()
        if self._main:
            asked.unlink(missing_ok=True)
        return True

    def _agree(self, wanted: bool) -> bool:
        """All processes stop after the same step."""
        accelerator = self._session.accelerator
        if accelerator.num_processes == 1:
            return wanted
        total: Any = accelerator.reduce(torch.tensor(float(wanted), device=accelerator.device), "sum")
        return bool(total.item() > 0)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that decide what is trained and differ. Looks and files may be others, and what one changes when a
    training has to be prolonged or calmed: steps, rates, clipping, precision."""
    free = {f"train.{name}" for name in ("steps", "learning_rate", "decoder_learning_rate", "clip_norm", "precision")}
    found: list[str] = []
    for section in ("base", "data", "train"):
        for key, value in now[section].items():
            old = before.get(section, {}).get(key, value)
            if old != value and f"{section}.{key}" not in free:
                found.append(f"{section}.{key}: {old} then, {value} now")
    return found


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
        if path.name not in ("cache", aside.name) and not path.name.startswith("earlier-"):
            path.rename(aside / path.name)
