"""Where the tasks run: here, in several processes, or on a Ray cluster. All yield outcomes as they come."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from .options import Options, UsageError
from .sources import Task
from .work import Outcome, run


def local(tasks: Sequence[Task], options: Options, workers: int) -> Iterator[Outcome]:
    """In this process, or spread over `workers` of their own, each with its own network."""
    if workers <= 1:
        yield from (run(task, options) for task in tasks)
        return
    # spawn: a forked process would inherit the threads of PyTorch and OpenCV half alive
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(run, task, options) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def ray(tasks: Sequence[Task], options: Options, workers: int) -> Iterator[Outcome]:
    """Through Ray Data: on the cluster that RAY_ADDRESS names, else on this machine. Paths mean the same everywhere.

    Raises UsageError where Ray is not installed.
    """
    try:
        import ray.data as ray_data
    except ImportError as error:
        raise UsageError(f'--engine ray needs the Python package ray: pip install "ray[data]" ({error})') from error

    def annotate(row: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": run(row["task"], options)}

    data = ray_data.from_items([{"task": task} for task in tasks], override_num_blocks=max(1, min(len(tasks), 4096)))
    for row in data.map(annotate, concurrency=workers if workers > 1 else None).iter_rows():
        yield row["outcome"]
