"""Pictures by address: every hop is looked at, and the machine that was looked at is the one that is asked."""

from __future__ import annotations

import io
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from tests.standalone.conftest import Traced

PUBLIC, INNER = "127.0.0.2", "127.0.0.1"
"""Stand for a machine of the internet and for one of this network."""


def numbers(name: str, port: int, *_: Any, **__: Any) -> list[Any]:
    """What a resolver makes of addresses, also in odd spellings; it knows one name."""
    try:
        address = socket.inet_ntoa(socket.inet_aton("127.0.0.1" if name == "localhost" else name))
    except OSError:
        if ":" not in name:
            raise
        address = name
    return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))]


@pytest.fixture
def fetch(host: Traced) -> Any:
    return host.app.modules("api.fetch")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x.png", "http://127.0.0.1:7860/x.png", "https://localhost/", "http://[::1]/", "http://0.0.0.0/",
        "http://10.1.2.3/", "http://192.168.1.1/", "http://172.16.0.1/", "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/", "http://[::ffff:10.0.0.1]/", "http://[fe80::1]/", "http://[fd00::1]/", "http://224.0.0.1/",
        "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://2130706433/", "http://0x7f.1/", "http://127.1/",
        "http://user:pass@1.1.1.1/", "http://1.1.1.1:0/", "http://1.1.1.1:99999/", "http:///x", "ftp://1.1.1.1/",
        "file:///etc/passwd", "gopher://1.1.1.1/", "http://1.1.1.1 @127.0.0.1/", "http://[::1", "http://no-such.invalid/",
        "http://1.1.1.1/\r\nHost: inner",
    ],
)  # fmt: skip
def test_only_public_addresses_are_asked(fetch: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_args, **_options: pytest.fail("it was asked"))
    monkeypatch.setattr(socket, "getaddrinfo", numbers)
    with pytest.raises(fetch.NotFetched):
        fetch.fetch(url)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_ones_are(fetch: Any, address: str) -> None:
    assert fetch._is_public(address)


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    return buffer.getvalue()


class Web:
    """Servers at both addresses with the same pages; names lead to one of them or, one after the other, to several."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.names = {"public.example": [PUBLIC], "inner.example": [INNER], "both.example": [PUBLIC, INNER]}
        self.asked: list[tuple[str, str]] = []
        self.pages: dict[str, str | bytes] = {"/x.png": picture()}

    def resolve(self, name: str, port: int, *_: Any, **__: Any) -> list[Any]:
        found = self.names.get(name, [name])
        turn = found.pop(0) if isinstance(found, Turns) else None
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ([turn] if turn else found)]

    def url(self, name: str, path: str = "/x.png") -> str:
        return f"http://{name}:{self.port}{path}"


class Turns(list[str]):
    """Addresses that a name has one after the other."""


@pytest.fixture
def web(fetch: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs a second loopback address")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append((self.server.server_address[0], self.headers["Host"]))  # type: ignore[arg-type]
            page = found.pages.get(self.path, 404)
            self.send_response(302 if isinstance(page, str) else 404 if page == 404 else 200)
            if isinstance(page, str):
                self.send_header("Location", page)
            self.end_headers()
            if isinstance(page, bytes):
                self.wfile.write(page)

        def log_message(self, *_: Any) -> None:
            return

    first = ThreadingHTTPServer((PUBLIC, 0), Handler)
    servers = [first, ThreadingHTTPServer((INNER, first.server_address[1]), Handler)]
    found = Web(first.server_address[1])
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setattr(fetch, "_is_public", lambda address: address == PUBLIC)
    monkeypatch.setattr(fetch.socket, "getaddrinfo", found.resolve)
    yield found
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_picture_comes(fetch: Any, web: Web) -> None:
    assert fetch.fetch(web.url("public.example")) == picture()
    assert web.asked == [(PUBLIC, f"public.example:{web.port}")]


def test_a_name_of_which_one_address_is_inner_is_not_asked(fetch: Any, web: Web) -> None:
    with pytest.raises(fetch.NotFetched, match="local resource"):
        fetch.fetch(web.url("both.example"))
    assert not web.asked


@pytest.mark.parametrize("hops", [1, 3])
@pytest.mark.parametrize(
    "target",
    [
        "http://inner.example:{port}/x.png",
        "http://127.0.0.1:{port}/x.png",
        "//inner.example:{port}/x.png",
        "file:///etc/passwd",
        "ftp://public.example/x",
    ],
)
def test_a_redirect_is_checked_like_the_address(fetch: Any, web: Web, hops: int, target: str) -> None:
    for hop in range(1, hops):
        web.pages[f"/{hop}"] = f"/{hop + 1}"
    web.pages[f"/{hops}"] = target.format(port=web.port)
    with pytest.raises(fetch.NotFetched):
        fetch.fetch(web.url("public.example", "/1"))
    assert [address for address, _ in web.asked] == [PUBLIC] * hops


def test_a_redirect_to_a_public_address_is_followed(fetch: Any, web: Web) -> None:
    web.pages["/1"] = web.url("public.example")
    assert fetch.fetch(web.url("public.example", "/1")) == picture()


def test_redirects_end(fetch: Any, web: Web) -> None:
    web.pages["/1"] = "/1"
    with pytest.raises(fetch.NotFetched, match="leads on"):
        fetch.fetch(web.url("public.example", "/1"))
    assert len(web.asked) == fetch.MOST_HOPS


def test_a_name_that_changes_its_address_is_asked_where_it_was_looked_at(fetch: Any, web: Web) -> None:
    web.names["turning.example"] = Turns([PUBLIC, INNER, INNER])
    assert fetch.fetch(web.url("turning.example")) == picture()
    assert [address for address, _ in web.asked] == [PUBLIC]


def test_local_addresses_where_the_user_allows_them(fetch: Any, web: Web) -> None:
    assert fetch.fetch(f"http://127.0.0.1:{web.port}/x.png", local=True) == picture()


def test_bytes_have_an_end(fetch: Any, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MOST_BYTES", 10)
    with pytest.raises(fetch.NotFetched, match="more than"):
        fetch.fetch(web.url("public.example"))
    with pytest.raises(fetch.NotFetched, match="404"):
        fetch.fetch(web.url("public.example", "/nothing"))
