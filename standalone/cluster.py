"""Work beyond one machine: tasks spread over a Ray cluster, or over one that is made here for them."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from .annotate.options import UsageError

LOCAL = "local"
ENGINES = ("local", "ray")
_PATIENCE = 1.0
"""Seconds between two questions whether to go on."""
Task = TypeVar("Task")


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


@dataclass(frozen=True)
class Failed:
    """A task that has no result: its process died each time, or raised something."""

    reason: str


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Ray's module, while the cluster is there. Raises UsageError where Ray or the cluster is not, or has no room."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(
            "--engine ray has an environment of its own, which launch.py makes on first use; "
            f'start the command with "python launch.py ... --engine ray" ({error})'
        ) from error
    cluster.connect(ray)
    try:
        cluster.check(ray)
        yield ray
    finally:
        ray.shutdown()


def spread(
    ray: Any, run: Callable[..., Any], tasks: Iterable[Task], given: object, cluster: Cluster,
    sent: Callable[[Task], object] = lambda task: task, go_on: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Task, Any]]:  # fmt: skip
    """Each task with what `run(sent(task), given)` returned on some machine, as they come, or with Failed.

    A task whose process died is begun anew elsewhere. `run` is imported there by its name, so the repository is of the
    same version, and paths mean the same. `go_on` is called about every second and may raise.
    """
    # max_calls: Ray would end the process of a task with a GPU after each, and with it the network in memory
    do = ray.remote(
        num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=cluster.retries, max_calls=0,
        scheduling_strategy="SPREAD",
    )(run)  # fmt: skip
    waiting = iter(tasks)
    under_way: dict[Any, Task] = {}
    everywhere = ray.put(given)
    while True:
        for task in islice(waiting, max(0, cluster.room(ray) - len(under_way))):
            under_way[do.remote(sent(task), everywhere)] = task
        if not under_way:
            return
        for reference in ray.wait(list(under_way), num_returns=1, timeout=_PATIENCE)[0]:
            yield under_way.pop(reference), _result(ray, reference, cluster.retries)
        go_on()


def _result(ray: Any, reference: Any, retries: int) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return Failed(f"{type(error.cause).__name__}: {error.cause}")
    except ray.exceptions.RayError as error:  # killed, out of memory, its machine gone
        reason = str(error).strip().partition("\n")[0]
        return Failed(f"its process died {retries + 1} times ({type(error).__name__}: {reason})")


def _nodes(ray: Any) -> list[dict[str, float]]:
    """What each machine of the cluster has, by resource."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def add_options(parser: argparse.ArgumentParser, of: str) -> None:
    """The command line's part; `of`: what a task is, for people."""
    cluster = parser.add_argument_group("more than one machine", "in an environment of its own; see docs/annotate.md")
    cluster.add_argument("--engine", choices=ENGINES, default="local", help="ray: on a Ray cluster")
    cluster.add_argument(
        "--address", metavar="HOST:PORT", help="its head (RAY_ADDRESS; else a cluster of this run's own, here)"
    )
    cluster.add_argument("--cpus-per-task", type=at_least(0, float), metavar="X", help=f"CPUs {of} takes (1)")
    cluster.add_argument(
        "--gpus-per-task", type=at_least(0, float), metavar="X", help=f"GPUs {of} takes (1 on a graphics card, else 0)"
    )
    cluster.add_argument(
        "--retries", type=at_least(0, int), metavar="N", help=f"how often {of} is begun anew whose process died (3)"
    )


def cluster_of(given: argparse.Namespace, *, on_card: bool) -> Cluster | None:
    """What the options name; None without --engine ray. `on_card`: tasks run on a GPU. Raises UsageError."""
    if given.engine != "ray":
        for name in ("address", "cpus_per_task", "gpus_per_task", "retries"):
            if getattr(given, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} is for a cluster: give --engine ray with it")
        return None
    return Cluster(
        address=given.address or os.environ.get("RAY_ADDRESS") or LOCAL,
        workers=given.workers,
        cpus=1.0 if given.cpus_per_task is None else given.cpus_per_task,
        gpus=float(on_card) if given.gpus_per_task is None else given.gpus_per_task,
        retries=3 if given.retries is None else given.retries,
    )


def above_zero(text: str) -> float:
    """A type for argparse: a finite number greater than 0."""
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"give a number above 0, not {text}")
    return value


def at_least(least: int, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type for argparse: a finite number from `least` on."""

    def number(text: str) -> Any:
        value = kind(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"give a number from {least}, not {text}")
        return value

    number.__name__ = kind.__name__
    return number
