"""The job that runs now: counters, interrupt flags, live preview."""

from __future__ import annotations

import threading
import time
from dataclasses import field, make_dataclass
from typing import Any

from modules import devices, errors, shared

FLAGS: dict[str, Any] = dict.fromkeys(("skipped", "interrupted", "stopping_generation"), False)
COUNTERS = dict.fromkeys(("job_no", "job_count", "sampling_step"), 0)
PREVIEW = {"current_latent": None, "current_image": None, "current_image_sampling_step": 0, "id_live_preview": 0,
           "stopped_at": None}  # fmt: skip
FRESH = {**FLAGS, **COUNTERS, **PREVIEW, "job": "", "textinfo": None, "processing_has_refined_job_count": False}
"""What every job starts with; `job_count` is -1 from `begin()` to the first batch."""
BEFORE_ANY_JOB = {**FRESH, "job_timestamp": "0", "sampling_steps": 0, "time_start": None}
AFTER_EACH_PICTURE = -1
REPORTED = (*FLAGS, *COUNTERS, "job", "job_timestamp", "sampling_steps")

_Fields: Any = make_dataclass("_Fields", [(name, Any, field(default=x)) for name, x in BEFORE_ANY_JOB.items()])


class State(_Fields):
    """Fields as extensions read and write them."""

    def __init__(self) -> None:
        super().__init__()
        self.server_start = time.time()
        self._command: str | None = None
        self._command_set = threading.Event()

    @property
    def server_command(self) -> str | None:
        return self._command

    @server_command.setter
    def server_command(self, value: str | None) -> None:
        self._command = value
        self._command_set.set()

    @property
    def need_restart(self) -> bool:
        return self._command == "restart"

    @need_restart.setter
    def need_restart(self, value: bool) -> None:
        if value:
            self.server_command = "restart"

    def wait_for_server_command(self, timeout: float | None = None) -> str | None:
        """The command ("restart", "stop") once there is one; None after `timeout` seconds."""
        if not self._command_set.wait(timeout):
            return None
        self._command_set.clear()
        command, self._command = self._command, None
        return command

    def request_restart(self) -> None:
        self.interrupt()
        self.server_command = "restart"

    def skip(self) -> None:
        self.skipped = True

    def interrupt(self) -> None:
        self._remember_where()
        self.interrupted = True

    def stop_generating(self) -> None:
        self._remember_where()
        self.stopping_generation = True

    def _remember_where(self) -> None:
        """(pictures or batches done, their number, steps done, their number) when it was first asked to stop."""
        if self.stopped_at is None:
            self.stopped_at = (self.job_no, self.job_count, self.sampling_step, self.sampling_steps)

    def nextjob(self) -> None:
        if _steps_between_previews() == AFTER_EACH_PICTURE:
            self.do_set_current_image()
        self.job_no += 1
        self.sampling_step = self.current_image_sampling_step = 0

    def dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in REPORTED}

    def begin(self, job: str = "(unknown)") -> None:
        now = time.time()
        stamp = time.strftime("%Y%m%d%H%M%S", time.localtime(now))
        self.__dict__.update(FRESH, job=job, job_count=-1, job_timestamp=stamp, time_start=now)
        devices.torch_gc()

    def end(self) -> None:
        self.no_job()
        devices.torch_gc()

    def no_job(self) -> None:
        self.job, self.job_count = "", 0

    def lower_flags(self) -> None:
        """Whatever was to be stopped has stopped."""
        self.__dict__.update(FLAGS)

    def set_current_image(self) -> None:
        """Refresh the live preview when enough steps have passed since the last one."""
        period = _steps_between_previews()
        if period in (None, AFTER_EACH_PICTURE) or not shared.parallel_processing_allowed:
            return
        if self.sampling_step - self.current_image_sampling_step >= period:
            self.do_set_current_image()

    def do_set_current_image(self) -> None:
        latents = self.current_latent
        try:
            if latents is not None:
                self.assign_current_image(_preview(latents))
                self.current_image_sampling_step = self.sampling_step
        except Exception:  # noqa: BLE001 - a model swap in this moment must not break the progress call
            errors.record_exception("live preview")

    def assign_current_image(self, image: Any) -> None:
        opaque = shared.opts.live_previews_image_format == "jpeg" and image.mode in ("RGBA", "P")
        self.current_image = image.convert("RGB") if opaque else image
        self.id_live_preview += 1


def _steps_between_previews() -> int | None:
    """None where there are none."""
    return shared.opts.show_progress_every_n_steps if shared.opts.live_previews_enable else None


def _preview(latents: Any) -> Any:
    from modules import sd_samplers_common

    grid = shared.opts.show_progress_grid
    return (sd_samplers_common.samples_to_image_grid if grid else sd_samplers_common.sample_to_image)(latents)
