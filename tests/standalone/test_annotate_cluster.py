"""`annotate --engine ray` as a user runs it: on a cluster of two machines (both this one), and on one of its own.

Ray has an environment of its own. `.ci/run` makes it; elsewhere `python launch.py ray --version` does, once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import launch

ROOT = Path(__file__).resolve().parents[2]
PICTURES = 10
MADE = launch.Environment(ROOT, launch.RAY.folder)

pytestmark = pytest.mark.skipif(bool(MADE._missing(launch.RAY.run)), reason="python launch.py ray --version makes it")


class Machines:
    """A head and a second machine, one CPU each, and the command that uses them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        token = folder / "token"
        token.write_text(f"{7:064d}", "utf-8")
        without = {"RAY_ADDRESS", "PYTHONPATH"}
        self.environment = {key: value for key, value in os.environ.items() if key not in without}
        self.environment |= {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._machine("head", "--head", "--port", self.address.rpartition(":")[2])
        self._machine("second", "--address", self.address)

    def stop(self) -> None:
        """With all that they started: Ray's own `stop` would end every Ray of this computer."""
        started = [child for process in self.processes for child in _below(process.pid)]
        for child in started:
            _kill(child)
        psutil.wait_procs(started, timeout=10)
        for process in self.processes:
            process.wait()

    def _machine(self, name: str, *arguments: str) -> None:
        log = self.folder / f"{name}.log"
        options = ("--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--block")
        command = [sys.executable, str(ROOT / "launch.py"), "ray", "start", *options, *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=self.environment, cwd=self.folder)
        self.processes.append(process)
        deadline = time.monotonic() + 120
        while b"block forever" not in log.read_bytes():
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline, log.read_text("utf-8")
            time.sleep(0.1)

    def annotate(self, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "launch.py"), "annotate", *map(str, arguments), "--json"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment, cwd=self.folder
        )

    def on_cluster(self, *arguments: object) -> subprocess.Popen[str]:
        return self.annotate(*arguments, "--engine", "ray", "--address", self.address)

    def busy(self) -> psutil.Process:
        """A process in which the cluster runs a picture just now: Ray writes so into its title."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for process in (child for started in self.processes for child in _below(started.pid)):
                if _title(process).startswith("ray::run"):
                    return process
            time.sleep(0.02)
        raise AssertionError("no process ran a picture")


def _below(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def report_of(process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    return json.loads(output.splitlines()[-1])


def maps(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    # not pytest's folder: the path of a socket in it would be too long for the system
    with tempfile.TemporaryDirectory(prefix="cn-", ignore_cleanup_errors=True) as folder:
        made = Machines(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="module")
def pictures(machines: Machines) -> Path:
    """Large enough that each takes a while."""
    folder = machines.folder / "in"
    folder.mkdir()
    random = np.random.default_rng(5)
    for number in range(PICTURES):
        small = Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        small.resize((1500, 1000), Image.Resampling.BICUBIC).save(folder / f"{number}.png", compress_level=1)
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    return folder


@pytest.fixture(scope="module")
def expected(machines: Machines, pictures: Path) -> dict[str, bytes]:
    """The maps of the local engine, of paths below the current folder."""
    out = machines.folder / "local"
    process = machines.annotate("in", "--preprocessor", "scribble_xdog", "--param", "resolution=512", "--out", "local")
    report_of(process, 1)
    found = maps(out)
    assert len(found) == PICTURES
    return found


ARGUMENTS = ("in", "--preprocessor", "scribble_xdog", "--param", "resolution=512")


def test_a_killed_worker_costs_no_picture(machines: Machines, expected: dict[str, bytes]) -> None:
    process = machines.on_cluster(*ARGUMENTS, "--out", "killed")
    machines.busy().kill()
    report = report_of(process, 1)
    assert (report["done"], [failure["file"] for failure in report["failed"]]) == (PICTURES, ["broken.png"])
    assert maps(machines.folder / "killed") == expected
    assert not list((machines.folder / "killed").glob("*.part"))


def test_a_stopped_run_goes_on_where_it_ended(machines: Machines, expected: dict[str, bytes]) -> None:
    out = machines.folder / "resumed"
    process = machines.on_cluster(*ARGUMENTS, "--out", "resumed", "--workers", 1)
    deadline = time.monotonic() + 90
    while not list(out.glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = len(maps(out))
    assert 0 < there < PICTURES
    report = report_of(machines.on_cluster(*ARGUMENTS, "--out", "resumed"), 1)
    assert there <= report["skipped"] < PICTURES
    assert report["done"] + report["skipped"] == PICTURES
    assert maps(out) == expected


def test_a_cluster_of_its_own_makes_the_same_maps(machines: Machines, expected: dict[str, bytes]) -> None:
    report_of(machines.annotate(*ARGUMENTS, "--out", "own", "--engine=ray", "--workers", 2), 1)
    assert maps(machines.folder / "own") == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cpus-per-task", "3"), "a task takes 3 CPUs and 0 GPUs"),
        (("--gpus-per-task", "1"), "a task takes 1 CPUs and 1 GPUs"),
    ],
)
def test_what_no_machine_has_is_said(machines: Machines, pictures: Path, arguments: tuple[str], said: str) -> None:
    process = machines.on_cluster(*ARGUMENTS, "--out", "never", *arguments)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert said in errors
    assert "no machine at" in errors


def test_an_address_where_nobody_listens_is_said_at_once(machines: Machines, pictures: Path) -> None:
    process = machines.annotate(*ARGUMENTS, "--out", "never", "--engine", "ray", "--address", "127.0.0.1:1")
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert "launch.py ray start --head" in errors
