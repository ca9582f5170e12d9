"""Training from inside a WebUI: the page "Train", its routes, and what they ask of the host."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from ...core.errors import HostError
from ...engine.services import PageServices
from ...training.status import Status


class LateJobs:
    """The training layer's TrainingJobs, imported when a training is first asked for: no start of a WebUI
    waits for what few of them use."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @cached_property
    def _jobs(self) -> Any:
        return self._make()

    def status(self) -> Any:
        """See TrainingJobs."""
        return self._jobs.status() if "_jobs" in vars(self) else Status("idle")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jobs, name)


class Training:
    """One for the process."""

    def __init__(self, root: Path, services: PageServices, weights: Callable[[], Sequence[Path]]) -> None:
        self._root, self._services, self._weights = root, services, weights
        self._unit: tuple[Any, ...] = ()

    @cached_property
    def jobs(self) -> LateJobs:
        """The training layer's."""

        def make() -> Any:
            from ...training.jobs import TrainingJobs

            return TrainingJobs(self._root, self._weights, self._caption, self._services.preprocess.entry)

        return LateJobs(make)

    def remember_unit(self, widgets: Sequence[Any]) -> None:
        """Keeps the switch and the model choice of txt2img's first unit, which "Use in unit 0" sets."""
        by_id = {getattr(widget, "elem_id", None): widget for widget in widgets}
        prefix = "txt2img_controlnet_ControlNet-0_controlnet"
        found = [by_id.get(f"{prefix}_{name}") for name in ("enable_checkbox", "model_dropdown")]
        self._unit = tuple(found) if None not in found else ()

    def page(self) -> None:
        """The page's widgets at the place of the call."""
        from modules.call_queue import queue_lock

        from ...ui.train_page import TrainDesk, build

        build(self._services, TrainDesk(self.jobs, checkpoint_path, self._install, queue_lock, self._unit))

    def mount_routes(
        self, app: Any, logins: Sequence[tuple[str, str]] | None, lock: AbstractContextManager[Any]
    ) -> None:
        """Adds `/controlnet/train`."""
        from ...webapi.train_routes import mount

        mount(app, self.jobs, self._services.setting, logins, lock)

    def _caption(self, picture: Any) -> str:
        """The host's interrogator in its turn: pictures can be made between two captions."""
        from modules.call_queue import queue_lock

        with queue_lock:
            try:
                return self._services.caption(picture)
            except HostError as error:
                raise HostError(
                    error.problem,
                    field="data.captions",
                    found=error.found,
                    remedy="write the caption files, or train without prompts; captions already written are kept",
                ) from error

    def _install(self, model: str) -> str:
        """Copies a finished model into the host's folder of control models, with the base that it changes where it has
        one; returns its name in the lists."""
        from modules import paths

        source = Path(model)
        folder = Path(paths.models_path) / "ControlNet"
        target = folder / source.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in (*source.parent.glob(f"{glob.escape(source.stem)}_basecn.safetensors"), source):
                partial = folder / f"{file.name}.part"
                shutil.copyfile(file, partial)
                partial.replace(folder / file.name)
        except OSError as error:
            raise HostError("the model cannot be copied to the control models", found=str(error)) from error
        self._services.library.refresh()
        return self._services.library.name_of(target)


def checkpoint_path() -> str:
    """The file of the loaded checkpoint, or of the chosen one where none is loaded yet. Raises HostError."""
    from modules import sd_models

    model = sd_models.model_data.sd_model
    info = getattr(model, "sd_checkpoint_info", None)
    if info is None:
        try:
            info = sd_models.select_checkpoint()
        except FileNotFoundError as error:
            raise HostError("there is no checkpoint to train for", found=str(error)) from error
    return str(info.filename)
