"""Stands before every route of the server, gradio's and web sockets too: origins first, then logins."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from standalone.server_logins import Logins
from standalone.server_origins import Origins, Refused

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """ASGI middleware. `page_routes`: gradio's own, which have its login page in front where it has accounts."""

    def __init__(self, app: Application, origins: Origins, logins: Logins, page_routes: list[Any]) -> None:
        self._app, self._origins, self._logins = app, origins, logins
        self._page_routes = page_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            scope = _origin_form(scope)
            path = _path(scope)
            self._origins.check(scope.get("method", "GET"), path, _headers(scope), scope["scheme"] in ("https", "wss"))
            cookie = self._logins.check(scope, path, self._is_page, _headers(scope))
        except Refused as refusal:
            await _refuse(scope, send, refusal)
            return
        await self._app(scope, receive, self._with_headers(send, cookie))

    def _is_page(self, scope: Scope) -> bool:
        from starlette.routing import Match

        return any(route.matches(scope)[0] is not Match.NONE for route in self._page_routes)

    def _with_headers(self, send: Send, cookie: str) -> Send:
        """Every answer says who may frame it; a first login leaves a cookie."""

        async def answer(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                headers += [(b"content-security-policy", self._origins.frames.encode())] * bool(self._origins.frames)
                headers += [(b"set-cookie", cookie.encode())] * bool(cookie)
                message = {**message, "headers": headers}
            await send(message)

        return answer


def close(app: Any, options: Any, page_routes: list[Any]) -> None:
    """Put the gate around an application that answers nothing yet."""
    from starlette.middleware import Middleware

    settings = {"origins": Origins.of(options), "logins": Logins.of(options), "page_routes": page_routes}
    app.user_middleware.append(Middleware(Gate, **settings))
    app.middleware_stack = None


@contextmanager
def closed_from_the_start(options: Any) -> Iterator[None]:
    """While it lasts, gradio's applications get their gate before their first request.

    gradio itself answers every origin; what it adds for that is taken off.
    """
    from gradio import routes

    original = routes.App.create_app

    def create_app(*args: Any, **kwargs: Any) -> Any:
        app = original(*args, **kwargs)
        app.user_middleware = [x for x in app.user_middleware if "CORS" not in x.cls.__name__]
        descriptions = (app.openapi_url, app.docs_url, app.redoc_url)  # gradio asks for no login there
        close(app, options, [route for route in app.router.routes if getattr(route, "path", "") not in descriptions])
        return app

    routes.App.create_app = staticmethod(create_app)
    try:
        yield
    finally:
        routes.App.create_app = staticmethod(original)


def _headers(scope: Scope) -> Callable[[str], list[str]]:
    def values(name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()]

    return values


def _path(scope: Scope) -> str:
    root = scope.get("root_path", "")
    return scope["path"][len(root) :] if root and scope["path"].startswith(root) else scope["path"]


def _origin_form(scope: Scope) -> Scope:
    """`GET http://name/path` as `GET /path` asked of that name, whatever the Host header says (RFC 9112, 3.2.2)."""
    if scope["path"].startswith("/") or "://" not in scope["path"]:
        return scope
    target = urlsplit(scope["path"])
    headers = [(key, value) for key, value in scope["headers"] if key != b"host"]
    raw = (target.path or "/").encode("utf-8", "surrogateescape")
    return {
        **scope,
        "path": target.path or "/",
        "raw_path": raw,
        "headers": [(b"host", target.netloc.encode("utf-8", "surrogateescape")), *headers],
    }


async def _refuse(scope: Scope, send: Send, refusal: Refused) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    content = {"error": "Refused", "detail": str(refusal), "body": "", "errors": str(refusal)}
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers += [(b"www-authenticate", b'Basic realm="WebUI", charset="UTF-8"')] * (refusal.status == 401)
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
