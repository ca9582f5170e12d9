"""Which task runs, which wait, which are done; and how far the running one is."""

from __future__ import annotations

import random
import string
import time
from collections import OrderedDict
from typing import Any

from modules import shared

current_task: str | None = None
"""Its id; None between tasks."""
pending_tasks: OrderedDict[str, float] = OrderedDict()
"""When each was put into the queue, by id."""
KEPT_TASKS, KEPT_RESULTS = 16, 2
finished_tasks: list[str] = []
recorded_results: list[tuple[str, Any]] = []


def create_task_id(task_type: str) -> str:
    suffix = "".join(random.choices(string.ascii_uppercase + string.digits, k=7))
    return f"task({task_type}-{suffix})"


def add_task_to_queue(id_task: str) -> None:
    pending_tasks[id_task] = time.time()


def start_task(id_task: str | None) -> None:
    global current_task
    pending_tasks.pop(id_task or "", None)
    current_task = id_task


def finish_task(id_task: str | None) -> None:
    global current_task
    current_task = None if current_task == id_task else current_task
    if id_task is not None:
        finished_tasks.append(id_task)
        del finished_tasks[:-KEPT_TASKS]


def record_results(id_task: str | None, res: Any) -> None:
    if id_task is not None:
        recorded_results.append((id_task, res))
        del recorded_results[:-KEPT_RESULTS]


def estimate() -> tuple[float, float]:
    """(progress 0..1, seconds left) of the running job; (0, 0) when there is none."""
    state = shared.state
    if state.job_count == 0:
        return 0.0, 0.0
    progress = 0.01  # never zero: the remaining time is elapsed / progress
    if state.job_count > 0:
        progress += state.job_no / state.job_count
    if state.sampling_steps > 0:
        progress += 1 / state.job_count * state.sampling_step / state.sampling_steps
    elapsed = time.time() - (state.time_start or time.time())
    return min(progress, 1.0), elapsed / progress - elapsed
