"""The loop of a training with everything that happens between its steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch

from ..core.errors import ControlNetError
from ..engine.device_memory import is_out_of_memory
from .adherence import Convergence, Point, find_convergence, half_way
from .base import Base
from .config import TrainConfig
from .errors import NotFinite, Stopped, TrainingError
from .log import Log, boards_of
from .looks import Look, Observer
from .planning import Plan
from .products import Products
from .state import save_state
from .trainer import ControlTrainer, Progress

_LOSS_OVER = 100


class _Watcher(Protocol):
    def begin(self, step: int, steps: int) -> None: ...
    def step(self, progress: Progress) -> None: ...
    def look(self, look: Look, convergence: Convergence | None) -> None: ...


class Owner(Protocol):
    """The session, as far as its loop needs it."""

    config: TrainConfig
    accelerator: Any
    curve: list[Point]
    floor: float | None
    half_way: int | None
    losses: list[float]
    marks: dict[str, Any]
    convergence: Convergence | None
    plan: Plan | None

    @property
    def watcher(self) -> _Watcher: ...
    def stage(self, what: str, done: int, total: int) -> None: ...
    def stopping(self) -> bool: ...
    def agree(self, wanted: bool) -> bool: ...
    def supply(self, base: Base, trainer: ControlTrainer) -> list[dict[str, Any]]: ...


class Run:
    """Only the first process writes and draws."""

    def __init__(self, owner: Owner, base: Base, trainer: ControlTrainer, observer: Observer | None) -> None:
        self._owner, self._trainer, self._config, self._observer = owner, trainer, owner.config, observer
        self._base = base
        self._main = owner.accelerator.is_main_process
        self.products = Products(owner.config, base, trainer, owner.marks)
        self._log: Log | None = None
        self._saved = (-1, 0)
        """Step and number of looks of the newest state."""
        if not self._main:
            return
        output = owner.config.output
        self._log = Log(output.folder, trainer.step, boards_of(owner.config, trainer.step))
        self._log.write("begin", first=trainer.step, steps=owner.config.train.steps, name=output.name)
        if owner.plan is not None:
            self._log.write("plan", **owner.plan.as_json(), says=str(owner.plan))
        if observer is not None:
            self._log.write("ceiling", value=observer.ceiling)

    def train(self) -> bool:
        """To the last step, True if it was stopped before. Whatever ends the loop, the state is saved first, unless the
        numbers are none any more: then the last state and the exported file stay as they are."""
        trainer, owner = self._trainer, self._owner
        owner.watcher.begin(trainer.step, self._config.train.steps)
        try:
            stopped = self._loop()
        except NotFinite:
            self._tell("diverged", step=trainer.step)
            raise
        except BaseException as error:
            if trainer.whole:
                self._save()
            if isinstance(error, ControlNetError) or not isinstance(error, Exception):
                raise
            if is_out_of_memory(error) or isinstance(error, OSError):
                raise _explained(error) from error
            raise
        self._save()
        self._tell("stopped" if stopped else "end", step=trainer.step)
        return stopped

    def locked(self) -> Iterable[torch.Tensor]:
        """Weights that must stay as they are."""
        return (value for value in self._trainer.unet.parameters() if not value.requires_grad)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def _loop(self) -> bool:
        """All steps, True if stopped."""
        trainer, steps = self._trainer, self._config.train.steps
        every = self._config.samples.every
        stopped = False
        if every and trainer.step % every == 0:
            stopped = self._look()
        while trainer.step < steps and not self._owner.agree(stopped or self._owner.stopping()):
            try:
                for window in self._owner.supply(self._base, trainer):
                    self._tell("window", **window)
                self._after(trainer.train_step(self._owner.stopping))
            except Stopped:  # between two passes, or while a window is opened
                stopped = True
                continue
            if every and trainer.step % every == 0:
                stopped = self._look()
        if trainer.step < steps:
            return True
        self._look()
        return False

    def _after(self, progress: Progress) -> None:
        owner = self._owner
        owner.losses = [*owner.losses[1 - _LOSS_OVER :], progress.loss]
        self._tell("step", step=progress.step, loss=progress.loss, rate=progress.rate, norm=progress.gradient_norm)
        owner.watcher.step(progress)
        if progress.step % self._config.output.save_every == 0:
            self._save()

    def _look(self) -> bool:
        """Draw and measure, where that was not done at this step; True if it was stopped in the middle."""
        owner, step = self._owner, self._trainer.step
        if self._observer is None or (owner.curve and owner.curve[-1].step == step):
            return False
        try:
            with self.products.in_use() as control, owner.accelerator.autocast():
                look = self._observer.look(control, step, owner)
        except Stopped:
            return True
        owner.curve.append(look.point)
        owner.floor = self._observer.floor
        floor, ceiling = self._observer.floor or 0.0, self._observer.ceiling
        before = owner.convergence
        owner.convergence = find_convergence(owner.curve, floor, ceiling)
        owner.half_way = half_way(owner.curve, floor, ceiling)
        self._tell("look", step=step, adherence=look.adherence, mismatched=look.mismatched, floor=floor,
                   ceiling=ceiling, grid=look.grid.name)  # fmt: skip
        if self._log is not None:
            self._log.picture(look.grid, step)
        new = owner.convergence if owner.convergence != before else None
        if new is not None:
            self._tell("convergence", step=new.step, after=new.after, value=new.value, rise=new.rise)
        owner.watcher.look(look, new)
        return False

    def _save(self) -> None:
        """A state and the model as it is; nothing where this step and its look are saved already. Raises NotFinite
        instead of writing weights that are no numbers."""
        owner, trainer = self._owner, self._trainer
        saved = trainer.step, len(owner.curve)
        if not self._main or self._saved == saved:
            return
        trainer.check_finite()
        content = {
            **trainer.state(),
            "curve": [list(point) for point in owner.curve],
            "floor": owner.floor,
            "losses": owner.losses,
            "config": owner.config.as_json(),
            "marks": dict(owner.marks),
        }
        save_state(owner.config.output.folder, trainer.step, content, self._config.output.keep)
        observer = self._observer
        measured = (owner.floor, None if observer is None else observer.ceiling)
        self.products.write(owner.curve, measured, () if observer is None else observer.prompts)
        self._saved = saved
        self._tell("saved", step=trainer.step)

    def _tell(self, event: str, **values: Any) -> None:
        if self._log is not None:
            self._log.write(event, **values)


def _explained(error: Exception) -> TrainingError:
    """What the user can do about a failure of the machine."""
    if is_out_of_memory(error):
        return TrainingError(
            "the memory is used up; all that was trained is saved",
            field="train",
            found=error,
            remedy="go on with --resume and less of it: train.checkpointing = true, a smaller train.batch_size with "
            "more accumulation, fewer data.held_out; --plan counts what a training takes",
        )
    return TrainingError("a file cannot be read or written; all that was trained is saved", field="output", found=error,
                         remedy="correct it and go on with --resume")  # fmt: skip
