"""The embedded WebUI as a process of its own, and calls that end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .grammar import Request
from .oracle import Answer

REPOSITORY = Path(__file__).resolve().parents[2]
START = 180.0


def call(port: int, request: Request, timeout: float) -> Answer:
    """The server's answer, or status 0 with what happened instead."""
    body = None if request.body is None else json.dumps(request.body).encode("utf-8", "surrogatepass")
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(request.method, request.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode("utf-8", "replace"), time.monotonic() - began)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, f"{type(error).__name__}: {error}", time.monotonic() - began)
    finally:
        connection.close()


@contextlib.contextmanager
def served(data: Path) -> Iterator[tuple[int, Path]]:
    """A server with the demo model: its port, and its log in `data`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "launch.py", "webui", "--nowebui", "--port", str(port), "--data-dir", str(data)]
    with (data / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=log, stderr=log, env={**os.environ}, start_new_session=os.name == "posix"
        )
        try:
            _wait(port, process)
            yield port, data / "server.log"
        finally:
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGTERM)
            process.terminate()
            process.wait(30)


def swallowed(log: Path | None) -> list[str]:
    """What the host has swallowed and reported: an exception that left a script's callback, or a status of 500."""
    lines = [] if log is None else log.read_text("utf-8", "replace").splitlines()
    return [line for line in lines if line.startswith("***")]


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START
    while call(port, Request("GET", "/controlnet/version"), 5).status != 200:
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("the server did not start; see server.log")
        time.sleep(0.5)
