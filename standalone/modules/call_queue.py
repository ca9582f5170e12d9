"""One job at a time: the queue lock, and wrappers for the page's handlers."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from modules import devices, errors, fifo_lock, progress, shared

queue_lock = fifo_lock.FIFOLock()


def wrap_queued_call(func: Callable[..., Any]) -> Callable[..., Any]:
    """`func`, called only while no other job runs."""

    @wraps(func)
    def queued(*args: Any, **kwargs: Any) -> Any:
        with queue_lock:
            return func(*args, **kwargs)

    return queued


@contextmanager
def running_job(job: str, id_task: str | None = None) -> Iterator[None]:
    """Within it, `job` is the one that `shared.state` counts and, as a task of the queue, `progress` too."""
    shared.state.begin(job=job)
    progress.start_task(id_task)
    try:
        yield
    finally:
        progress.finish_task(id_task)
        shared.state.end()


def _task_of(args: tuple[Any, ...]) -> str | None:
    """The page's id of a task, which handlers get as their first argument."""
    first = args[0] if args else None
    return first if isinstance(first, str) and first.startswith("task(") and first.endswith(")") else None


def wrap_gradio_gpu_call(func: Callable[..., Any], extra_outputs: list[Any] | None = None) -> Callable[..., Any]:
    """A handler of a generate button: queued, counted as a job, exceptions shown on the page."""

    @wraps(func)
    def waiting(*args: Any, **kwargs: Any) -> Any:
        id_task = _task_of(args)
        if id_task:
            progress.add_task_to_queue(id_task)
        with queue_lock, running_job(id_task or "(unknown)", id_task):
            outputs = func(*args, **kwargs)
            progress.record_results(id_task, outputs)
        return outputs

    return wrap_gradio_call(waiting, extra_outputs=extra_outputs, add_stats=True)


def wrap_gradio_call(
    func: Callable[..., Any], extra_outputs: list[Any] | None = None, add_stats: bool = False
) -> Callable[..., Any]:
    """A handler after which nothing is being stopped any more."""

    @wraps(func)
    def freed(*args: Any, **kwargs: Any) -> Any:
        try:
            return func(*args, **kwargs)
        finally:
            shared.state.lower_flags()
            shared.state.no_job()

    return wrap_gradio_call_no_job(freed, extra_outputs, add_stats)


def wrap_gradio_call_no_job(
    func: Callable[..., Any], extra_outputs: list[Any] | None = None, add_stats: bool = False
) -> Callable[..., Any]:
    """Turn an exception into `extra_outputs` plus an error box; the last output is always HTML."""

    @wraps(func)
    def answered(*args: Any, extra_outputs_array: list[Any] | None = extra_outputs, **kwargs: Any) -> tuple[Any, ...]:
        start = time.perf_counter()
        try:
            outputs = list(func(*args, **kwargs))
        except Exception as e:  # noqa: BLE001 - shown to the user on the page
            plain = isinstance(e, errors.WrongRequest)  # its sentence is for whoever asked, not for a programmer
            errors.report(str(e) if plain else "Error completing request", exc_info=not plain)
            message = html.escape(str(e) if plain else f"{type(e).__name__}: {e}")
            outputs = [*(extra_outputs_array or [None, ""]), f"<div class='error'>{message}</div>"]
        devices.torch_gc()
        if add_stats:
            outputs[-1] += _time_taken(time.perf_counter() - start)
        return tuple(outputs)

    return answered


def _time_taken(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    text = f"{int(minutes)} min. {rest:.1f} sec." if minutes else f"{rest:.1f} sec."
    timing = f"Time taken: <span class='measurement'>{text}</span>"
    return f"<div class='performance'><p class='time'>{timing}</p></div>"
