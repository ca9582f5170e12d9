"""Finding and downloading weights; the hub is a small server on this machine that huggingface_hub talks to."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from annotator.sd_controlnet import weights
from annotator.sd_controlnet.spec import Cancelled, Runtime, WeightFile
from annotator.sd_controlnet.weights import MissingWeights, download, existing_file, find
from tests.hub_file import FileAnswer

CONTENT = np.random.default_rng(0).bytes(5 << 20)
SHA = hashlib.sha256(CONTENT).hexdigest()
WEIGHT = WeightFile(name="net.pth", folder="net", size=len(CONTENT), licence="MIT", repo="someone/nets", path="a/b.pth")


ADDRESS = "https://huggingface.co/someone/nets/resolve/main/a/b.pth"
FILE = "/someone/nets/resolve/main/a/b.pth"


class Hub(ThreadingHTTPServer):
    """Answers as the hub does for a file in LFS; `stop_after` bytes the connection breaks, once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.requests: list[str] = []
        self.sha = SHA
        self.stop_after: int | None = None
        self.hold: threading.Event | None = None


class _Answer(FileAnswer, BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        if self._has():
            self.begin(0, len(CONTENT), self.server.sha)

    def do_GET(self) -> None:
        if not self._has():
            return
        start = self.start
        self.server.requests.append(f"{self.path} from {start}")
        self.begin(start, len(CONTENT), self.server.sha)
        end = len(CONTENT) if self.server.stop_after is None else self.server.stop_after
        self.server.stop_after = None
        self.wfile.write(CONTENT[start:end])
        self.wfile.flush()
        if self.server.hold is not None:
            self.server.hold.wait(20)
        if end < len(CONTENT):
            self.close_connection = True

    def _has(self) -> bool:
        """Whether there is the file that is asked for; answers where there is none."""
        if self.path == FILE:
            return True
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv(
        "HF_HUB_OFFLINE", "1"
    )  # as launch.py sets it: a download that was asked for must run all the same
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    yield server
    server.shutdown()
    server.server_close()


# --- where files are looked for ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["net/net.pth", "net.pth", "someone/nets/a/b.pth"])
def test_the_folders_of_the_peers_are_known(place: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (second / place).parent.mkdir(parents=True)
    (second / place).write_bytes(b"x")
    assert existing_file(WEIGHT, (first, second)) == second / place
    assert find(WEIGHT, Runtime(weight_folders=(first, second))) == second / place


def test_the_first_folder_wins(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.pth").write_bytes(b"x")
    assert existing_file(WEIGHT, (tmp_path / "b", tmp_path / "a")) == tmp_path / "b" / "net.pth"


def test_nothing_is_downloaded_without_leave(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        find(WEIGHT, Runtime(weight_folders=(tmp_path,)))
    for part in (
        "net.pth",
        "5.2 MB",
        str(tmp_path),
        ADDRESS,
        "allow downloads",
    ):
        assert part in str(caught.value)
    assert not hub.requests


# --- downloads -----------------------------------------------------------------------------------------------------


def test_a_download_is_whole_and_checked(hub: Hub, tmp_path: Path) -> None:
    parts: list[float] = []
    runtime = Runtime(weight_folders=(tmp_path,), download_folder=lambda: tmp_path, progress=parts.append)
    file = find(WEIGHT, runtime)
    assert file == tmp_path / "net" / "net.pth"
    assert file.read_bytes() == CONTENT
    assert not file.is_symlink()
    assert not list((tmp_path / weights.STAGING).iterdir())
    assert all(0 <= part <= 1 for part in parts)
    count = len(hub.requests)
    assert find(WEIGHT, runtime) == file
    assert len(hub.requests) == count


def test_a_broken_download_is_resumed(hub: Hub, tmp_path: Path) -> None:
    hub.stop_after = 3 << 20
    download(WEIGHT, tmp_path)
    assert (tmp_path / "net" / "net.pth").read_bytes() == CONTENT
    assert len(hub.requests) == 2
    assert not hub.requests[-1].endswith("from 0"), hub.requests


def test_a_killed_download_is_resumed_by_the_next(hub: Hub, tmp_path: Path) -> None:
    hub.stop_after, hub.hold = 3 << 20, threading.Event()
    arrived: list[float] = []
    with pytest.raises(Cancelled):
        download(WEIGHT, tmp_path, progress=arrived.append, cancelled=lambda: bool(arrived) and arrived[-1] > 0.3)
    hub.hold.set()
    hub.hold = None
    assert not (tmp_path / "net" / "net.pth").exists()
    download(WEIGHT, tmp_path)
    assert (tmp_path / "net" / "net.pth").read_bytes() == CONTENT
    assert not hub.requests[-1].endswith("from 0"), hub.requests


@pytest.mark.parametrize("whose", ["hub", "published"])
def test_a_wrong_sha256_is_refused_and_not_resumed(hub: Hub, tmp_path: Path, whose: str) -> None:
    weight, wrong = WEIGHT, "ab" * 32
    if whose == "hub":
        hub.sha = wrong
    else:
        weight = WeightFile(
            name="net.pth", folder="net", size=1, licence="MIT", repo="someone/nets", path="a/b.pth", sha256=wrong[:8]
        )
    with pytest.raises(MissingWeights, match="sha256") as caught:
        download(weight, tmp_path)
    assert SHA in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    hub.sha = SHA
    assert download(WEIGHT, tmp_path).read_bytes() == CONTENT


def test_no_network_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MissingWeights) as caught:
        download(WEIGHT, tmp_path)
    for part in (
        "net.pth",
        "5.2 MB",
        str(tmp_path / "net"),
        ADDRESS,
        "could not be",
    ):
        assert part in str(caught.value)


def test_a_file_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    other = WeightFile(name="x.pth", folder="net", size=1, licence="MIT", repo="someone/nets", path="gone.pth")
    with pytest.raises(MissingWeights, match=r"x\.pth"):
        download(other, tmp_path)


def test_a_full_disk_is_said_beforehand(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(MissingWeights, match="are free"):
        download(WEIGHT, tmp_path)
    assert not hub.requests


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingWeights, match="file"):
        download(WEIGHT, tmp_path / "file")
