"""Where a hub may lead a download: every hop is checked like the hub's own address."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from annotator.sd_controlnet import hub_download

HUB = "https://huggingface.co/a/resolve/main/b"
NAMES = {"cdn.example": ["1.1.1.1"], "inner.example": ["10.0.0.5"], "both.example": ["1.1.1.1", "127.0.0.1"],
         "mapped.example": ["::ffff:192.168.0.1"], "huggingface.co": ["1.1.1.2"]}  # fmt: skip


class Answer:
    def __init__(self, location: str) -> None:
        self.headers = {"Location": location}
        self.is_redirect = bool(location)
        self.is_permanent_redirect = False

    def close(self) -> None: ...


class Requests:
    """The library, as far as it is used; every address leads to the next."""

    def __init__(self, *hops: str, proxy: bool = False) -> None:
        self._hops = [*hops, ""]
        self.asked: list[tuple[str, bool]] = []
        self.utils = SimpleNamespace(get_environ_proxies=lambda _url: {"https": "http://proxy"} if proxy else {})

    def get(self, url: str, headers: dict[str, str], allow_redirects: bool, **_: Any) -> Answer:
        assert allow_redirects is False
        self.asked.append((url, "authorization" in headers))
        return Answer(self._hops.pop(0))


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str, port: int, **_: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, port)) for address in NAMES.get(name, [name])]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def follow(requests: Requests, url: str = HUB) -> Any:
    return hub_download._follow(requests, url, {"authorization": "Bearer token", "Range": "bytes=0-"})


def test_to_a_public_machine_without_the_login() -> None:
    requests = Requests("/elsewhere", "https://cdn.example/x", "https://cdn.example/y")
    follow(requests)
    assert requests.asked == [
        (HUB, True),
        ("https://huggingface.co/elsewhere", True),
        ("https://cdn.example/x", False),
        ("https://cdn.example/y", False),
    ]


@pytest.mark.parametrize(
    "target",
    [
        "https://inner.example/", "https://both.example/", "https://mapped.example/", "https://127.0.0.1/",
        "https://[::1]/", "https://169.254.169.254/latest", "http://cdn.example/", "ftp://cdn.example/", "file:///etc/x",
        "//inner.example/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("hops", [0, 2])
def test_nowhere_else(target: str, hops: int) -> None:
    requests = Requests(*["https://cdn.example/x"] * hops, target)
    with pytest.raises(OSError, match="the hub leads on"):
        follow(requests)
    assert len(requests.asked) == hops + 1


def test_redirects_end() -> None:
    with pytest.raises(OSError, match="more than"):
        follow(Requests(*["/again"] * 50))


def test_a_mirror_of_the_users_own_may_be_near() -> None:
    """HF_ENDPOINT names it; it may lead to itself and to public machines, not to others of the network."""
    start = "http://127.0.0.1:8000/a"
    follow(Requests("http://127.0.0.1:8000/b", "https://cdn.example/c"), start)
    with pytest.raises(OSError, match="no public machine"):
        follow(Requests("http://127.0.0.1:9000/b"), start)


def test_a_proxy_looks_names_up_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: pytest.fail("looked up"))
    follow(Requests("https://cdn.example/x", proxy=True))
    with pytest.raises(OSError, match="http address"):
        follow(Requests("http://cdn.example/x", proxy=True))
