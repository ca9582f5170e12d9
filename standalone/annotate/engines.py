"""The engine of one machine: the tasks here, or in several processes; `cluster.py` is the one beyond it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from .options import Options
from .sources import Task
from .work import Outcome, run


def local(tasks: Sequence[Task], options: Options, workers: int) -> Iterator[Outcome]:
    """In this process, or spread over `workers` of their own, each with its own network."""
    if workers <= 1:
        yield from (run(task, options) for task in tasks)
        return
    # spawn: a forked process would inherit the threads of PyTorch and OpenCV half alive
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts) as pool:
        futures = [pool.submit(run, task, options) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _leave_interrupts() -> None:
    """Ctrl-C goes to every process of a terminal: the first of them ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
