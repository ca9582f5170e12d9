"""How the hub answers for a file in LFS; for servers on this machine that huggingface_hub talks to."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler


class FileAnswer(BaseHTTPRequestHandler):
    """What the servers' own answers have in common."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    @property
    def start(self) -> int:
        """The byte that is asked for first."""
        return int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])

    def begin(self, start: int, size: int, sha: str) -> None:
        """The headers of a file of `size` bytes from `start` on."""
        self.send_response(206 if start else 200)
        for name, value in (
            ("X-Repo-Commit", "0" * 40),
            ("X-Linked-Etag", f'"{sha}"'),
            ("X-Linked-Size", str(size)),
            ("ETag", f'"{sha}"'),
            ("Accept-Ranges", "bytes"),
            ("Content-Length", str(size - start)),
        ):
            self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
