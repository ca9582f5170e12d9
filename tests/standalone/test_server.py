"""The embedded WebUI as a process, asked over the wire: its gate, and its answers while 60 jobs wait."""

from __future__ import annotations

import concurrent.futures
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lib_controlnet.core.arguments import FIELDS, FIRST_UNIT
from tests.standalone import tiny_checkpoint

pytest.importorskip("gradio")
ROOT = Path(__file__).resolve().parents[2]
JOB = {"prompt": "a heart", "steps": 2, "width": 64, "height": 64, "sampler_name": "Euler", "send_images": False}


class Server:
    def __init__(self, port: int) -> None:
        self.port = port
        self.base = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: Any = None, method: str = "", **headers: str) -> tuple[int, str]:
        """(status, text). `body`: sent as JSON, or bytes as they are."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        kind = {} if data is None or isinstance(body, bytes) else {"content-type": "application/json"}
        given = {**kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        request = urllib.request.Request(self.base + path, data, given, method=method or None)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode("utf-8", "replace")

    def raw(self, text: str) -> int:
        """The status that these very bytes get."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as wire:
            wire.sendall(text.replace("PORT", str(self.port)).encode("latin-1"))
            return int(wire.recv(64).split()[1])


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    """The embedded WebUI as a process, with its data in `folder`, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "standalone.webui", "--port", str(port), "--data-dir", str(folder / "data")]
    with (folder / "log.txt").open("w+") as log:
        process = subprocess.Popen(
            [*command, *flags],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        try:
            found = Server(port)
            _wait(found, process, folder / "log.txt")
            yield found
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    checkpoint = tiny_checkpoint.write(folder / "models", "tiny")
    with serving(folder, "--ckpt", str(checkpoint), "--no-half") as found:
        yield found


def _wait(server: Server, process: subprocess.Popen[Any], log: Path) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        try:
            if server.ask("/controlnet/version")[0] == 200:  # the last routes that are added
                return
        except OSError:
            pass
        time.sleep(0.3)
    pytest.fail("the WebUI did not start:\n" + log.read_text("utf-8", "replace")[-4000:])


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET /internal/ping HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n", 200),
        ("GET /internal/ping HTTP/1.1\r\nHost: LocalHost.:PORT\r\n\r\n", 200),
        ("GET /internal/ping HTTP/1.1\r\nhOsT:   [::1]:PORT  \r\n\r\n", 200),
        ("GET /internal/ping HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        ("GET /internal/ping HTTP/1.0\r\n\r\n", 400),
        ("GET http://evil.example/internal/ping HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n", 403),
        ("GET http://127.0.0.1:PORT/internal/ping HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        ("GET /config HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://evil.example\r\n\r\n", 403),
        ("GET /file=LICENSE HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\n\r\n", 403),
    ],
)
def test_names_over_the_wire(server: Server, text: str, status: int) -> None:
    assert server.raw(text) == status


@pytest.mark.parametrize(("origin", "status"), [("", 101), ("http://127.0.0.1:PORT", 101), ("http://evil.example", 403),
                                                ("null", 403), ("http://127.0.0.1:1", 403)])  # fmt: skip
def test_web_sockets_shake_hands_with_the_own_page(server: Server, origin: str, status: int) -> None:
    if server.ask("/queue/join", {})[0] == 422:
        pytest.skip("this gradio has no web socket")
    lines = [
        "GET /queue/join HTTP/1.1",
        "Host: 127.0.0.1:PORT",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *([f"Origin: {origin}"] if origin else []),
    ]
    assert server.raw("\r\n".join(lines) + "\r\n\r\n") == status


def test_another_page_changes_nothing(server: Server) -> None:
    evil = {"origin": "http://evil.example"}
    assert server.ask("/sdapi/v1/options", {"CLIP_stop_at_last_layers": 2}, **evil)[0] == 403
    assert server.ask("/sdapi/v1/options", b'{"CLIP_stop_at_last_layers": 2}', content_type="text/plain")[0] == 415
    assert server.ask("/upload", b"x", content_type="multipart/form-data; boundary=y", **evil)[0] == 403
    assert server.ask("/run/predict", {"fn_index": 0, "data": []}, **evil)[0] == 403
    assert json.loads(server.ask("/sdapi/v1/options")[1])["CLIP_stop_at_last_layers"] == 1


def _import_function(server: Server) -> int:
    config = json.loads(server.ask("/config")[1])
    widget = next(x["id"] for x in config["components"] if "preset_import" in str(x["props"].get("elem_id")))
    return next(i for i, x in enumerate(config["dependencies"]) if x["inputs"] == [widget])


def test_the_import_of_a_preset_reads_no_file_of_the_server(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("s3cret-of-the-server")
    payload = {"name": str(secret), "path": str(secret), "is_file": True, "data": None, "orig_name": "a.json"}
    call = {"fn_index": _import_function(server), "data": [payload], "session_hash": "x"}
    for route in ("/run/predict", "/api/predict"):
        status, text = server.ask(route, call)
        assert status >= 400
        assert "s3cret" not in text


@pytest.mark.parametrize("field", ["merge_images", "batch_images"])
def test_a_job_reads_no_file_by_position(server: Server, field: str) -> None:
    values: dict[str, Any] = dict.fromkeys(FIELDS)
    values.update(enabled=True, preprocessor="canny", model="any", input_mode=field.removesuffix("_images"), weight=1)
    values[field] = [str(ROOT / "models" / "demo" / "drawing.png")]
    args = [None] * FIRST_UNIT + [values[name] for name in FIELDS]
    status, text = server.ask("/sdapi/v1/txt2img", {**JOB, "alwayson_scripts": {"controlnet": {"args": args}}})
    assert status == 422
    assert f"unit 0, {field}" in text
    assert "no file that was uploaded" in text


def test_answers_come_while_60_jobs_wait(server: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor(60) as clients:
        long = {**JOB, "steps": 60}
        jobs = [clients.submit(server.ask, "/sdapi/v1/txt2img", long) for _ in range(60)]
        time.sleep(1)
        seconds: dict[str, float] = {}
        for path, body in (
            ("/sdapi/v1/progress", None),
            ("/internal/progress", {"id_task": "x"}),
            *(
                (f"/controlnet/{x}", None)
                for x in ("version", "model_list", "module_list", "control_types", "settings")
            ),
            ("/sdapi/v1/interrupt", {}),
        ):
            start = time.monotonic()
            assert server.ask(path, body)[0] == 200, path
            seconds[path] = time.monotonic() - start
        waited = sum(not job.done() for job in jobs)
        while not all(job.done() for job in jobs):
            server.ask("/sdapi/v1/interrupt", {})
        assert {job.result()[0] for job in jobs} == {200}
    assert waited > 40, "the jobs were too quick to say anything"
    assert max(seconds.values()) < 3, seconds  # a busy machine takes a second; those who wait take a minute
