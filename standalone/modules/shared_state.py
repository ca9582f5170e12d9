"""The job that runs now: counters, interrupt flags, live preview."""

from __future__ import annotations

import datetime
import threading
import time
from typing import Any

from modules import devices, errors, shared


class State:
    """Fields as extensions read and write them; `job_count` is -1 between `begin()` and the first batch."""

    def __init__(self) -> None:
        self.skipped = False
        self.interrupted = False
        self.stopping_generation = False
        self.job = ""
        self.job_no = 0
        self.job_count = 0
        self.processing_has_refined_job_count = False
        self.job_timestamp = "0"
        self.sampling_step = 0
        self.sampling_steps = 0
        self.current_latent: Any = None
        self.current_image: Any = None
        self.current_image_sampling_step = 0
        self.id_live_preview = 0
        self.textinfo: str | None = None
        self.time_start: float | None = None
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
        self.interrupted = True

    def stop_generating(self) -> None:
        self.stopping_generation = True

    def nextjob(self) -> None:
        if shared.opts.live_previews_enable and shared.opts.show_progress_every_n_steps == -1:
            self.do_set_current_image()
        self.job_no += 1
        self.sampling_step = 0
        self.current_image_sampling_step = 0

    def dict(self) -> dict[str, Any]:
        names = ("skipped", "interrupted", "stopping_generation", "job", "job_count", "job_timestamp", "job_no")
        return {name: getattr(self, name) for name in (*names, "sampling_step", "sampling_steps")}

    def begin(self, job: str = "(unknown)") -> None:
        self.sampling_step = 0
        self.time_start = time.time()
        self.job_count = -1
        self.processing_has_refined_job_count = False
        self.job_no = 0
        self.job_timestamp = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
        self.current_latent = None
        self.current_image = None
        self.current_image_sampling_step = 0
        self.id_live_preview = 0
        self.skipped = False
        self.interrupted = False
        self.stopping_generation = False
        self.textinfo = None
        self.job = job
        devices.torch_gc()

    def end(self) -> None:
        self.job = ""
        self.job_count = 0
        devices.torch_gc()

    def set_current_image(self) -> None:
        """Refresh the live preview when enough steps have passed since the last one."""
        period = shared.opts.show_progress_every_n_steps
        due = self.sampling_step - self.current_image_sampling_step >= period
        if shared.parallel_processing_allowed and due and shared.opts.live_previews_enable and period != -1:
            self.do_set_current_image()

    def do_set_current_image(self) -> None:
        if self.current_latent is None:
            return
        from modules import sd_samplers_common

        try:
            grid = shared.opts.show_progress_grid
            make = sd_samplers_common.samples_to_image_grid if grid else sd_samplers_common.sample_to_image
            self.assign_current_image(make(self.current_latent))
            self.current_image_sampling_step = self.sampling_step
        except Exception:  # noqa: BLE001 - a model swap in this moment must not break the progress call
            errors.record_exception("live preview")

    def assign_current_image(self, image: Any) -> None:
        if shared.opts.live_previews_image_format == "jpeg" and image.mode in ("RGBA", "P"):
            image = image.convert("RGB")
        self.current_image = image
        self.id_live_preview += 1
