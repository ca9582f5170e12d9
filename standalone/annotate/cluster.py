"""The engine beyond one machine: the tasks spread over a Ray cluster, or over one that is made here for them."""

from __future__ import annotations

import importlib
import math
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .options import Options, UsageError
from .sources import Task
from .work import Outcome, run

LOCAL = "local"


@dataclass(frozen=True)
class Cluster:
    """Where and with what the tasks run.

    address: `host:port` of the cluster's head; "local" for a cluster of this run's own on this machine. workers: tasks
    at a time, None for as many as the cluster has room for. cpus, gpus: what a task takes of its machine. retries: how
    often a task is begun anew whose process or machine died.
    """

    address: str = LOCAL
    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3

    def connect(self, ray: Any) -> None:
        """Start or join the cluster. Raises UsageError."""
        own: dict[str, Any] = {}
        if self.address == LOCAL:
            room = None if self.workers is None else max(1, math.ceil(self.workers * self.cpus))
            # the dashboard is a web server, whose packages are not in the lock
            own = {"num_cpus": room, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            self._answers()
            ray.init(address=self.address, log_to_driver=False, logging_level="WARNING", **own)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"--engine ray: no cluster at {self.address} ({' '.join(str(error).split())}); start its head with "
                '"python launch.py ray start --head", give --address HOST:PORT as it says, and have its '
                "~/.ray/auth_token here too"
            ) from error

    def _answers(self) -> None:
        """Somebody listens at the address: Ray itself asks for two minutes. Raises OSError."""
        host, colon, port = self.address.rpartition(":")
        if colon and port.isdecimal() and "/" not in host:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()

    def check(self, ray: Any) -> None:
        """Raises UsageError if no machine of the cluster can run even one task: it would wait for ever."""
        nodes = _nodes(ray)
        if not any(self._at_a_time(node) for node in nodes):
            most = [f"{max((node.get(name, 0) for node in nodes), default=0):g} {name}s" for name in ("CPU", "GPU")]
            raise UsageError(
                f"--engine ray: a task takes {self.cpus:g} CPUs and {self.gpus:g} GPUs, and no machine at "
                f"{self.address} has that (the most: {', '.join(most)}); set --cpus-per-task, --gpus-per-task"
            )

    def room(self, ray: Any) -> int:
        """Tasks to have under way. Without a number twice as many as can run now: no machine waits for its next one."""
        return self.workers or max(1, 2 * sum(self._at_a_time(node) for node in _nodes(ray)))

    def _at_a_time(self, node: dict[str, float]) -> int:
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        return int(min((node.get(name, 0) / need for name, need in needs.items() if need), default=1))


def on_ray(tasks: Sequence[Task], options: Options, cluster: Cluster) -> Iterator[Outcome]:
    """The outcomes as they come. Paths mean the same on every machine, and the repository is the same version there.

    A task whose process died is begun anew elsewhere; one that kills its process each time is reported, as a picture
    that cannot be read is. Raises UsageError where Ray or the cluster is not there.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(
            "--engine ray has an environment of its own, which launch.py makes on first use; "
            f'start it with "python launch.py annotate ... --engine ray" ({error})'
        ) from error
    cluster.connect(ray)
    try:
        cluster.check(ray)
        # max_calls: Ray would end the process of a task with a GPU after each, and with it the network in memory
        do = ray.remote(
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
            max_retries=cluster.retries,
            max_calls=0,
            scheduling_strategy="SPREAD",
        )(run)
        yield from _spread(ray, do, tasks, anywhere(options), cluster)
    finally:
        ray.shutdown()


def _spread(ray: Any, do: Any, tasks: Sequence[Task], options: Options, cluster: Cluster) -> Iterator[Outcome]:
    waiting = iter(tasks)
    under_way: dict[Any, Task] = {}
    given = ray.put(options)
    while True:
        for task in _next(waiting, cluster.room(ray) - len(under_way)):
            under_way[do.remote(_absolute(task), given)] = task
        if not under_way:
            return
        for reference in ray.wait(list(under_way), num_returns=1)[0]:
            yield _outcome(ray, reference, under_way.pop(reference), cluster.retries)


def _outcome(ray: Any, reference: Any, task: Task, retries: int) -> Outcome:
    try:
        return replace(ray.get(reference), task=task)
    except ray.exceptions.RayTaskError as error:
        return _failed(task, f"{type(error.cause).__name__}: {error.cause}")
    except ray.exceptions.RayError as error:  # killed, out of memory, its machine gone
        reason = str(error).strip().partition("\n")[0]
        return _failed(task, f"its process died {retries + 1} times ({type(error).__name__}: {reason})")


def _failed(task: Task, reason: str) -> Outcome:
    return Outcome(task, errors=((task.name, reason),))


def _next(waiting: Iterator[Task], count: int) -> Iterator[Task]:
    for _ in range(count):
        task = next(waiting, None)
        if task is None:
            return
        yield task


def _nodes(ray: Any) -> list[dict[str, float]]:
    """What each machine of the cluster has, by resource."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def anywhere(options: Options) -> Options:
    """The options with absolute paths: other processes have another current folder."""
    masks = None if options.masks is None else options.masks.absolute()
    return replace(options, masks=masks, weights=tuple(path.absolute() for path in options.weights))


def _absolute(task: Task) -> Task:
    return Task(task.source.absolute(), task.target.absolute(), task.name)


def address_of_environment() -> str:
    """The cluster that RAY_ADDRESS names, as Ray's own programs take it."""
    return os.environ.get("RAY_ADDRESS") or LOCAL
