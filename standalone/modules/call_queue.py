"""One job at a time: the queue lock, and wrappers for the page's handlers."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from modules import devices, errors, fifo_lock, progress, shared

queue_lock = fifo_lock.FIFOLock()


def wrap_queued_call(func: Callable[..., Any]) -> Callable[..., Any]:
    def f(*args: Any, **kwargs: Any) -> Any:
        with queue_lock:
            return func(*args, **kwargs)

    return f


def wrap_gradio_gpu_call(func: Callable[..., Any], extra_outputs: list[Any] | None = None) -> Callable[..., Any]:
    """A handler of a generate button: queued, counted as a job, exceptions shown on the page."""

    @wraps(func)
    def f(*args: Any, **kwargs: Any) -> Any:
        first = args[0] if args and isinstance(args[0], str) else ""
        id_task = first if first.startswith("task(") and first.endswith(")") else None
        if id_task:
            progress.add_task_to_queue(id_task)
        with queue_lock:
            shared.state.begin(job=id_task or "(unknown)")
            progress.start_task(id_task)
            try:
                res = func(*args, **kwargs)
                progress.record_results(id_task, res)
            finally:
                progress.finish_task(id_task)
            shared.state.end()
        return res

    return wrap_gradio_call(f, extra_outputs=extra_outputs, add_stats=True)


def wrap_gradio_call(
    func: Callable[..., Any], extra_outputs: list[Any] | None = None, add_stats: bool = False
) -> Callable[..., Any]:
    @wraps(func)
    def f(*args: Any, **kwargs: Any) -> Any:
        try:
            return func(*args, **kwargs)
        finally:
            state = shared.state
            state.skipped = state.interrupted = state.stopping_generation = False
            state.job_count, state.job = 0, ""

    return wrap_gradio_call_no_job(f, extra_outputs, add_stats)


def wrap_gradio_call_no_job(
    func: Callable[..., Any], extra_outputs: list[Any] | None = None, add_stats: bool = False
) -> Callable[..., Any]:
    """Turn an exception into `extra_outputs` plus an error box; the last output is always HTML."""

    @wraps(func)
    def f(*args: Any, extra_outputs_array: list[Any] | None = extra_outputs, **kwargs: Any) -> tuple[Any, ...]:
        start = time.perf_counter()
        try:
            res = list(func(*args, **kwargs))
        except Exception as e:  # noqa: BLE001 - shown to the user on the page
            errors.report("Error completing request", exc_info=True)
            message = html.escape(f"{type(e).__name__}: {e}")
            res = [*(extra_outputs_array or [None, ""]), f"<div class='error'>{message}</div>"]
        devices.torch_gc()
        if add_stats:
            minutes, seconds = divmod(time.perf_counter() - start, 60)
            text = f"{int(minutes)} min. {seconds:.1f} sec." if minutes else f"{seconds:.1f} sec."
            timing = f"Time taken: <span class='measurement'>{text}</span>"
            res[-1] += f"<div class='performance'><p class='time'>{timing}</p></div>"
        return tuple(res)

    return f
