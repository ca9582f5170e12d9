"""A hub on the loopback: any file that is asked for is a tiny control model, and it can break off half-way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from safetensors.torch import save

from tests.engine.tiny import SD1_SHAPED, tiny_controlnet


class Hub(ThreadingHTTPServer):
    """Attributes:
    asked: what was asked for, with the byte that it began at. held: while it is cleared, answers stop half-way.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content = save(tiny_controlnet(SD1_SHAPED).state_dict())
        self.sha = hashlib.sha256(self.content).hexdigest()
        self.asked: list[tuple[str, int]] = []
        self.held = threading.Event()
        self.held.set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._begin(0)

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.server.asked.append((self.path, start))
        self._begin(start)
        middle = max(start, len(self.server.content) // 2)
        self.wfile.write(self.server.content[start:middle])
        self.wfile.flush()
        if not self.server.held.wait(20):
            self.close_connection = True
            return
        self.wfile.write(self.server.content[middle:])

    def _begin(self, start: int) -> None:
        size = len(self.server.content)
        self.send_response(206 if start else 200)
        for name, value in (
            ("X-Repo-Commit", "0" * 40),
            ("X-Linked-Etag", f'"{self.server.sha}"'),
            ("X-Linked-Size", str(size)),
            ("ETag", f'"{self.server.sha}"'),
            ("Accept-Ranges", "bytes"),
            ("Content-Length", str(size - start)),
        ):
            self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()


@contextmanager
def running() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
