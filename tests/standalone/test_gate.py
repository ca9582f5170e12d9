"""The gate before the server's routes: names, origins, forms and logins, as a browser and as programs send them."""

from __future__ import annotations

import asyncio
import base64
import re
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")

from fastapi import FastAPI, WebSocket

from standalone.server_gate import Gate
from standalone.server_logins import COOKIE, Logins
from standalone.server_origins import Origins

OPTIONS: dict[str, Any] = dict.fromkeys(
    (
        "listen",
        "server_name",
        "allowed_hosts",
        "cors_allow_origins",
        "cors_allow_origins_regex",
        "api_auth",
        "gradio_auth",
        "gradio_auth_path",
    )
)
OWN = "127.0.0.1:7860"
JSON = {"content-type": "application/json"}
BROWSER = {"sec-fetch-site": "same-origin", "origin": f"http://{OWN}"}


def application() -> tuple[FastAPI, list[Any]]:
    """A server as gradio's: its own routes, then ours."""
    app = FastAPI()
    app.tokens = {"of-anna": "anna"}  # type: ignore[attr-defined]
    app.queue_token = "drawn"  # type: ignore[attr-defined]

    async def answer() -> str:
        return "answered"

    async def queue(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    for path in ("/", "/config", "/upload", "/login", "/run/predict", "/api/predict", "/startup-events", "/reset"):
        app.add_api_route(path, answer, methods=["GET", "POST"], include_in_schema=False)
    app.add_api_websocket_route("/queue/join", queue)
    page = [route for route in app.router.routes if getattr(route, "endpoint", None) in (answer, queue)]
    for path in ("/internal/ping", "/internal/options", "/sdapi/v1/options", "/controlnet/version"):
        app.add_api_route(path, answer, methods=["GET", "POST"], include_in_schema=False)
    return app, page


class Server:
    def __init__(self, **options: Any) -> None:
        given = SimpleNamespace(**{**OPTIONS, **options})
        app, page = application()
        self.app = app
        self.gate = Gate(app, Origins.of(given), Logins.of(given), page)

    def ask(self, path: str, method: str = "GET", headers: Any = (), kind: str = "http") -> tuple[int, dict[str, str]]:
        """(status, headers); a web socket that is taken is 101. `headers`: a mapping, without Host it gets ours."""
        pairs = list(headers.items() if isinstance(headers, dict) else headers)
        if not any(name == "host" for name, _ in pairs):
            pairs.insert(0, ("host", OWN))
        sent: list[dict[str, Any]] = []
        scope = {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http" if kind == "http" else "ws",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "subprotocols": [],
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs if value is not None],
            "client": ("127.0.0.1", 9),
            "server": ("127.0.0.1", 7860),
            "app": self.app,
        }
        if kind == "http":
            scope["method"] = method

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.gate(scope, receive, send))
        first = sent[0]
        if kind == "websocket":
            return (101 if first["type"] == "websocket.accept" else 403), {}
        return first["status"], {name.decode(): value.decode() for name, value in first["headers"]}

    def status(self, path: str = "/internal/options", method: str = "GET", **headers: str | None) -> int:
        return self.ask(path, method, {name.replace("_", "-"): value for name, value in headers.items()})[0]


OUR_HOSTS = (
    "127.0.0.1", "127.0.0.1:7860", "127.0.0.1:9999", "127.8.9.1:7860", "localhost", "localhost:7860", "LOCALHOST:7860",
    "LocalHost.:7860", "localhost.", "[::1]", "[::1]:7860", "[0:0:0:0:0:0:0:1]:7860", "[::ffff:127.0.0.1]:7860",
)  # fmt: skip
FOREIGN_HOSTS = (
    "evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.nip.io:7860", "evil-localhost",
    "192.168.1.5:7860", "10.0.0.1", "[fe80::1]:7860", "[::ffff:10.0.0.1]", "2130706433:7860", "0x7f.0.0.1",
    "localhost.localdomain", "xn--lcalhost-54a",
)  # fmt: skip
NO_HOSTS = (
    "", "user@localhost", "localhost:7860@evil.example", "localhost/evil", "localhost evil", "[::1", "::1", "a:b",
    "localhost:", "localhost:999999", "http://localhost", "localhost\\evil", "localhost#", "localhost,evil.example",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["http", "websocket"])
class TestHost:
    @pytest.mark.parametrize("host", OUR_HOSTS)
    def test_own_names(self, host: str, kind: str) -> None:
        path = "/queue/join" if kind == "websocket" else "/internal/options"
        assert Server().ask(path, headers={"host": host}, kind=kind)[0] in (200, 101)

    @pytest.mark.parametrize("host", [*FOREIGN_HOSTS, *NO_HOSTS])
    def test_other_names(self, host: str, kind: str) -> None:
        path = "/queue/join" if kind == "websocket" else "/internal/options"
        assert Server().ask(path, headers={"host": host}, kind=kind)[0] in (400, 403)

    def test_exactly_one(self, kind: str) -> None:
        path = "/queue/join" if kind == "websocket" else "/internal/options"
        assert Server().ask(path, headers=[("host", OWN), ("host", OWN)], kind=kind)[0] in (400, 403)
        assert Server().ask(path, headers=[("host", None)], kind=kind)[0] in (400, 403)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost:7860/internal/options", 200),
        ("HTTP://LOCALHOST:7860/internal/options", 200),
        ("http://evil.example/internal/options", 403),
        ("http://localhost@evil.example/internal/options", 400),
        ("http:///internal/options", 400),
    ],
)
def test_an_absolute_address_counts_before_the_host_header(target: str, status: int) -> None:
    assert Server().ask(target)[0] == status
    assert Server().ask(target, headers={"host": "evil.example"})[0] == status


@pytest.mark.parametrize(
    ("options", "host", "status"),
    [
        ({"listen": True}, "192.168.1.5:7860", 200),
        ({"listen": True}, "[fe80::1]:7860", 200),
        ({"listen": True}, "127.0.0.1:7860", 200),
        ({"listen": True}, "evil.example:7860", 403),
        ({"server_name": "0.0.0.0"}, "203.0.113.9", 200),
        ({"server_name": "sd.lan"}, "SD.lan:7860", 200),
        ({"server_name": "sd.lan"}, "other.lan:7860", 403),
        ({"server_name": "::1"}, "10.0.0.1", 403),
        ({"allowed_hosts": "sd.example, *.Tunnel.example"}, "sd.example", 200),
        ({"allowed_hosts": "sd.example,*.tunnel.example"}, "a.b.tunnel.example:80", 200),
        ({"allowed_hosts": "sd.example,*.tunnel.example"}, "tunnel.example", 403),
        ({"allowed_hosts": "sd.example,*.tunnel.example"}, "eviltunnel.example", 403),
        ({"allowed_hosts": "sd.example"}, "evil.sd.example", 403),
        ({"allowed_hosts": "*"}, "whatever.example", 200),
        ({"cors_allow_origins": "https://sd.example"}, "sd.example", 200),
        ({"cors_allow_origins": "https://sd.example:8443"}, "sd.example:8443", 200),
        ({"cors_allow_origins": "https://sd.example"}, "evil.example", 403),
        ({"cors_allow_origins": "*"}, "whatever.example", 200),
        ({"cors_allow_origins_regex": r"https://\w+\.sd\.example"}, "one.sd.example", 200),
        ({"cors_allow_origins_regex": r"https://\w+\.sd\.example"}, "sd.example", 403),
    ],
)
def test_flags_name_further_hosts(options: dict[str, Any], host: str, status: int) -> None:
    assert Server(**options).ask("/internal/options", headers={"host": host})[0] == status


FOREIGN_ORIGINS = (
    "http://evil.example", "https://evil.example", "null", "http://127.0.0.1:3000", "http://127.0.0.1",
    "http://localhost:7860", "http://127.0.0.1.evil.example:7860", "http://127.0.0.1:7860.evil.example",
    "http://evil@127.0.0.1:7860", "file://", "chrome-extension://abc", "http://127.0.0.1:78600", "", "http://",
    "http://127.0.0.1:7860, http://evil.example",
)  # fmt: skip


class TestOrigin:
    @pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
    @pytest.mark.parametrize(("path", "method"), [("/internal/options", "GET"), ("/upload", "POST"),
                             ("/sdapi/v1/options", "POST"), ("/run/predict", "POST"), ("/", "OPTIONS")])  # fmt: skip
    def test_of_another_page(self, origin: str, path: str, method: str) -> None:
        assert Server().ask(path, method, {"origin": origin, **JSON})[0] == 403

    @pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
    def test_of_another_page_at_a_web_socket(self, origin: str) -> None:
        assert Server().ask("/queue/join", headers={"origin": origin}, kind="websocket")[0] == 403

    @pytest.mark.parametrize(
        ("host", "origin"),
        [
            (OWN, "http://127.0.0.1:7860"),
            ("LOCALHOST.:7860", "http://localhost:7860"),
            ("[::1]:7860", "http://[::1]:7860"),
            ("localhost", "http://localhost"),
            ("localhost:80", "http://localhost"),
            ("localhost", "https://localhost"),  # a proxy speaks TLS for us
            ("localhost:443", "https://localhost"),
        ],
    )
    def test_of_our_own_page(self, host: str, origin: str) -> None:
        headers = {"host": host, "origin": origin, **JSON}
        assert Server().ask("/sdapi/v1/options", "POST", headers)[0] == 200
        assert Server().ask("/queue/join", headers=headers, kind="websocket")[0] == 101

    @pytest.mark.parametrize(
        ("options", "origin", "status"),
        [
            ({"cors_allow_origins": "https://a.example,http://b.example:1"}, "https://a.example", 200),
            ({"cors_allow_origins": "https://a.example/, http://b.example:1"}, "http://b.example:1", 200),
            ({"cors_allow_origins": "https://a.example"}, "http://a.example", 403),
            ({"cors_allow_origins": "https://a.example"}, "https://a.example.evil", 403),
            ({"cors_allow_origins": "*"}, "https://whoever.example", 200),
            ({"cors_allow_origins_regex": r"https://a\.example(:\d+)?"}, "https://a.example:8", 200),
            ({"cors_allow_origins_regex": r"https://a\.example"}, "https://a.example.evil", 403),
            ({"allowed_hosts": "sd.example"}, "https://sd.example", 200),  # the proxy rewrites Host
            ({"allowed_hosts": "sd.example"}, "https://evil.example", 403),
            ({"allowed_hosts": "*"}, "https://evil.example", 403),
        ],
    )
    def test_flags_name_further_origins(self, options: dict[str, Any], origin: str, status: int) -> None:
        assert Server(**options).ask("/sdapi/v1/options", "POST", {"origin": origin, **JSON})[0] == status

    def test_programs_send_none(self) -> None:
        server = Server()
        assert server.ask("/sdapi/v1/options", "POST", JSON)[0] == 200
        assert server.ask("/sdapi/v1/options", "POST")[0] == 200  # `curl -X POST`, without a body
        assert server.ask("/upload", "POST", {"content-type": "multipart/form-data; boundary=x"})[0] == 200
        assert server.ask("/queue/join", kind="websocket")[0] == 101

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_a_browser_that_leaves_it_out_says_where_it_comes_from(self, site: str) -> None:
        server = Server()
        assert server.status(sec_fetch_site=site) == 403
        assert server.status(sec_fetch_site=site, sec_fetch_mode="no-cors", sec_fetch_dest="image") == 403
        assert server.status("/", sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="iframe") == 403
        assert server.status("/", sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="document") == 200
        form = {"sec_fetch_site": site, "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
        assert server.status("/upload", "POST", **form) == 403
        assert server.status(sec_fetch_site="same-origin") == server.status(sec_fetch_site="none") == 200

    @pytest.mark.parametrize(("referer", "status"), [
        ("http://evil.example/", 403), ("http://127.0.0.1:7860/x?y#z", 200), ("http://127.0.0.1:3000/", 403),
        ("http://127.0.0.1:7860@evil.example/", 403), ("nonsense", 403),
    ])  # fmt: skip
    def test_else_the_referer_does(self, referer: str, status: int) -> None:
        assert Server().ask("/sdapi/v1/options", "POST", {"referer": referer, **JSON})[0] == status

    def test_only_named_pages_may_frame_ours(self) -> None:
        assert Server().ask("/")[1]["content-security-policy"] == "frame-ancestors 'self'"
        answer = Server(cors_allow_origins="https://a.example").ask("/")[1]
        assert answer["content-security-policy"] == "frame-ancestors 'self' https://a.example"


@pytest.mark.parametrize("path", ["/sdapi/v1/options", "/internal/options", "/controlnet/version", "/run/predict"])
@pytest.mark.parametrize(("kind", "status"), [
    ("application/json", 200), ("Application/JSON; charset=utf-8", 200), ("application/problem+json", 200),
    ("text/plain", 415), ("text/plain; application/json", 415), ("application/x-www-form-urlencoded", 415),
    ("multipart/form-data; boundary=x", 415), ("application/jsonp", 415), ("", 415), ("text/json", 415),
])  # fmt: skip
def test_changes_want_json(path: str, kind: str, status: int) -> None:
    assert Server().ask(path, "POST", {"content-type": kind})[0] == status
    assert Server().ask(path, "POST", {"content-type": kind, **BROWSER})[0] == status
    assert Server().ask(path, "POST", [("content-type", "application/json"), ("content-type", kind)])[0] == status


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


EVERYTHING_BUT_GRADIO = ("/internal/ping", "/internal/options", "/sdapi/v1/options", "/controlnet/version", "/docs",
                         "/openapi.json", "/of-another-extension")  # fmt: skip


class TestLogins:
    @pytest.mark.parametrize("path", [*EVERYTHING_BUT_GRADIO, "/", "/config", "/run/predict", "/upload"])
    def test_api_auth_closes_everything(self, path: str) -> None:
        server = Server(api_auth=" anna:secret , bob:wörd:x,")
        for headers in (basic("anna", "word"), basic("bob", "secret"), basic("", ""), basic(" anna", "secret"),
                        {"authorization": "Basic %%%"}, {"authorization": "Bearer None"}, {"cookie": f"{COOKIE}=x"},
                        {"cookie": "access-token=of-anna"}, {}):  # fmt: skip
            assert server.ask(path, headers=headers)[0] == 401
        for user, password in (("anna", "secret"), ("bob", "wörd:x")):
            assert server.ask(path, headers=basic(user, password))[0] in (200, 404)

    def test_the_page_keeps_its_login_in_a_cookie(self) -> None:
        server = Server(api_auth="anna:secret")
        status, headers = server.ask("/", headers=basic("anna", "secret"))
        cookie = re.match(rf"({COOKIE}=[\w-]+); Path=/; HttpOnly; SameSite=Strict", headers["set-cookie"])
        assert status == 200
        assert cookie
        for path in ("/", "/config", "/internal/options"):
            assert server.ask(path, headers={"cookie": f"a=b; {cookie[1]}"})[0] == 200
        assert server.ask("/queue/join", headers={"cookie": cookie[1]}, kind="websocket")[0] == 101
        assert server.ask("/queue/join", kind="websocket")[0] == 403
        for path in ("/sdapi/v1/options", "/controlnet/version"):
            assert server.ask(path, headers={"cookie": cookie[1]})[0] == 401
        assert "set-cookie" not in server.ask("/sdapi/v1/options", headers=basic("anna", "secret"))[1]

    def test_gradio_runs_its_own_queue(self) -> None:
        server = Server(api_auth="anna:secret")
        assert server.ask("/startup-events")[0] == server.ask("/reset", "POST", JSON)[0] == 200
        assert server.ask("/api/predict", "POST", {"authorization": "Bearer drawn", **JSON})[0] == 200
        assert server.ask("/sdapi/v1/options", "POST", {"authorization": "Bearer drawn", **JSON})[0] == 401

    @pytest.mark.parametrize("path", EVERYTHING_BUT_GRADIO)
    def test_gradio_auth_closes_the_api_as_well(self, path: str) -> None:
        server = Server(gradio_auth="anna:secret")
        assert server.ask(path)[0] == 401
        assert server.ask(path, headers={"cookie": "access-token=stolen"})[0] == 401
        assert server.ask(path, headers=basic("anna", "secret"))[0] in (200, 404)
        assert server.ask(path, headers={"cookie": "access-token-unsecure=of-anna"})[0] in (200, 404)

    def test_gradio_asks_at_its_own_routes_but_for_the_web_socket(self) -> None:
        server = Server(gradio_auth="anna:secret")
        assert server.ask("/")[0] == 200  # its login page
        assert server.ask("/queue/join", headers={"cookie": "access-token=made-up"}, kind="websocket")[0] == 403
        assert server.ask("/queue/join", headers={"cookie": "access-token=of-anna"}, kind="websocket")[0] == 101

    def test_both_flags(self) -> None:
        server = Server(api_auth="robot:key", gradio_auth="anna:secret")
        session = {"cookie": "access-token=of-anna"}
        assert server.ask("/internal/options", headers=session)[0] == 200
        for path in ("/sdapi/v1/options", "/controlnet/version"):
            assert server.ask(path, headers=session)[0] == 401
            assert server.ask(path, headers=basic("anna", "secret"))[0] == 401
            assert server.ask(path, headers=basic("robot", "key"))[0] == 200
        assert server.ask("/internal/options")[0] == 401

    def test_accounts_in_a_file(self, tmp_path: Any) -> None:
        file = tmp_path / "accounts"
        file.write_text(" anna:secret,bob: word \n\n carl:pass word\n", "utf-8")
        found = Logins.of(SimpleNamespace(**{**OPTIONS, "gradio_auth_path": str(file), "gradio_auth": "dora:x"}))
        assert found.for_api == (("dora", "x"), ("anna", "secret"), ("bob", " word"), ("carl", "pass word"))

    @pytest.mark.parametrize("text", ["anna", "anna:x,bob", ":secret"])
    def test_an_account_without_name_or_colon_does_not_start(self, text: str) -> None:
        with pytest.raises(ValueError, match="--api-auth takes user:password") as refusal:
            Server(api_auth=text)
        assert "secret" not in str(refusal.value)
