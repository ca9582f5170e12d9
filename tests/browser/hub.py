"""A hub on the loopback: any file that is asked for is a tiny control model, and it can break off half-way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from safetensors.torch import save

from tests.engine.tiny import SD1_SHAPED, tiny_controlnet
from tests.hub_file import FileAnswer


class Hub(ThreadingHTTPServer):
    """Attributes:
    asked: what was asked for, with the byte that it began at. held: while it is cleared, answers stop half-way.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Answer)
        self.content = save(tiny_controlnet(SD1_SHAPED).state_dict())
        self.sha = hashlib.sha256(self.content).hexdigest()
        self.asked: list[tuple[str, int]] = []
        self.held = threading.Event()
        self.held.set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(FileAnswer, BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.begin(0, len(self.server.content), self.server.sha)

    def do_GET(self) -> None:
        start, content = self.start, self.server.content
        self.server.asked.append((self.path, start))
        self.begin(start, len(content), self.server.sha)
        middle = max(start, len(content) // 2)
        self.wfile.write(content[start:middle])
        self.wfile.flush()
        if not self.server.held.wait(20):
            self.close_connection = True
            return
        self.wfile.write(content[middle:])


@contextmanager
def running(port: int = 0) -> Iterator[Hub]:
    """A hub on `port`, or on any that is free."""
    server = Hub(port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
