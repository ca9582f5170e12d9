"""The engine beyond one machine: `cluster.py` above with the tasks of this command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..cluster import Cluster, Failed, connected, spread
from .options import Options
from .sources import Task
from .work import Outcome, run


def on_ray(tasks: Sequence[Task], options: Options, cluster: Cluster) -> Iterator[Outcome]:
    """The outcomes as they come. Paths mean the same on every machine, and the repository is the same version there.

    A task whose process died is begun anew elsewhere; one that kills its process each time is reported, as a picture
    that cannot be read is. Raises UsageError where Ray or the cluster is not there.
    """
    with connected(cluster) as ray:
        yield from outcomes(ray, tasks, options, cluster)


def outcomes(ray: Any, tasks: Sequence[Task], options: Options, cluster: Cluster) -> Iterator[Outcome]:
    """The same on the cluster of `ray`."""
    for task, found in spread(ray, run, tasks, anywhere(options), cluster, _absolute):
        failed = isinstance(found, Failed)
        yield Outcome(task, errors=((task.name, found.reason),)) if failed else replace(found, task=task)


def anywhere(options: Options) -> Options:
    """The options with absolute paths: other processes have another current folder."""
    masks = None if options.masks is None else options.masks.absolute()
    return replace(options, masks=masks, weights=tuple(path.absolute() for path in options.weights))


def _absolute(task: Task) -> Task:
    return Task(task.source.absolute(), task.target.absolute(), task.name)
