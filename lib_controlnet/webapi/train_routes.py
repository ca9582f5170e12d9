"""`/controlnet/train`: start, watch and stop a training. Off unless the settings allow it, since it reads and writes
folders that the caller names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel

from .logins import login_check
from .router import new_router
from .threads import Threads

_FORBIDDEN, _CONFLICT = 403, 409


class ControlNetTraining(BaseModel):
    """`config`: the sections of a training's configuration (docs/training.md); relative paths start at the extension's
    folder. `resume`: go on from the newest state in its output folder."""

    config: dict[str, dict[str, Any]]
    resume: bool = False


def mount(
    app: FastAPI,
    jobs: Any,
    setting: Callable[[str, Any], Any],
    auth: Sequence[tuple[str, str]] | None,
    lock: AbstractContextManager[Any],
) -> None:
    """Adds the routes. `jobs` is the training layer's TrainingJobs. `lock` is the host's queue: a training starts when
    the pictures that are being made are done; from then on it runs in its own process and holds nothing."""
    routes = _TrainRoutes(jobs, setting, lock)
    router = new_router([Depends(login_check(auth))] if auth is not None else [])
    quick, waiting = Threads(4), Threads(4)
    handlers: tuple[tuple[str, Any, list[str]], ...] = (
        ("train", quick.handler(routes.status), ["GET"]),
        ("train", waiting.handler(routes.start), ["POST"]),
        ("train/check", waiting.handler(routes.check), ["POST"]),
        ("train/stop", quick.handler(routes.stop), ["POST"]),
    )
    for path, endpoint, methods in handlers:
        router.add_api_route(f"/controlnet/{path}", endpoint, methods=methods)
    app.include_router(router)


class _TrainRoutes:
    def __init__(self, jobs: Any, setting: Callable[[str, Any], Any], lock: AbstractContextManager[Any]) -> None:
        self._jobs, self.setting, self._lock = jobs, setting, lock

    def status(self) -> dict[str, Any]:
        """Where the training is: state, step, loss, adherence, curves, files."""
        self._check_allowed()
        return dataclasses.asdict(self._jobs.status())

    def start(self, body: ControlNetTraining) -> dict[str, Any]:
        """Check the data and start; the answer is the status."""
        self._check_allowed()
        if self._jobs.status().state == "running":
            raise HTTPException(_CONFLICT, "a training is running already; stop it first")
        with self._lock:
            return dataclasses.asdict(self._jobs.start(body.config, resume=body.resume))

    def check(self, body: ControlNetTraining) -> dict[str, Any]:
        """The data's report: pairs, sizes, captions, problems. Nothing is started."""
        self._check_allowed()
        report, _ = self._jobs.check(body.config)
        return report.as_json()

    def stop(self) -> dict[str, Any]:
        """End the training after its step, with everything saved."""
        self._check_allowed()
        return dataclasses.asdict(self._jobs.stop())

    def _check_allowed(self) -> None:
        if not self.setting("controlnet_allow_training", False):
            raise HTTPException(
                _FORBIDDEN, "Training is off. Turn on Settings > ControlNet > Allow training, on the server."
            )
