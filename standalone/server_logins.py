"""Logins of the command line: who may use the API, and who the page.

--gradio-auth: gradio's login page stands before the page; the API asks for the same accounts (HTTP Basic).
--api-auth: the API asks for these accounts; without --gradio-auth the page asks for them too, else it would do for
anybody what the API refuses.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from standalone.server_origins import Header, Refused

COOKIE = "webui-login"
FROM_ITSELF = ("/startup-events", "/reset")
"""Requests that gradio's server sends to itself, without any login."""
Pairs = tuple[tuple[str, str], ...]
Scope = dict[str, Any]


@dataclass(frozen=True)
class Logins:
    """`api`, `page`: (user, password) of each account, both empty where everybody may come in."""

    api: Pairs = ()
    page: Pairs = ()
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @classmethod
    def of(cls, options: Any) -> Logins:
        """From --api-auth, --gradio-auth and --gradio-auth-path. Raises ValueError for an account without a colon."""
        page = list(_accounts("--gradio-auth", options.gradio_auth))
        if options.gradio_auth_path:
            with open(options.gradio_auth_path, encoding="utf-8") as file:
                page += [pair for line in file for pair in _accounts("--gradio-auth-path", line)]
        return cls(tuple(_accounts("--api-auth", options.api_auth)), tuple(page))

    @property
    def for_api(self) -> Pairs:
        """The accounts of the API: its own, else the page's."""
        return self.api or self.page

    def check(self, scope: Scope, path: str, is_page: Callable[[Scope], bool], header: Header) -> str:
        """Raises Refused (401). Returns the cookie that the answer is to set, "" for none.

        `is_page`: whether the route is gradio's own.
        """
        if not self.for_api:
            return ""
        app, cookies, credentials = scope.get("app"), list(_cookies(header("cookie"))), header("authorization")
        page = is_page(scope)
        if page and (path.rstrip("/") in FROM_ITSELF or (self.page and scope["type"] == "http")):
            return ""  # gradio asks for the login at each of its own routes
        if page and self.page and not _has_session(app, cookies):  # except that a web socket's cookie is believed
            raise Refused(401, "log in on the page first")
        if _fits(credentials, self.for_api):
            return self._cookie() if page else ""
        if not (self._opened(page, path, cookies, app) or (page and _is_its_queue(app, credentials))):
            raise Refused(401, "Incorrect username or password" if credentials else "Not authenticated")
        return ""

    def _opened(self, page: bool, path: str, cookies: Sequence[tuple[str, str]], app: Any) -> bool:
        """Whether the browser is logged in already: for the page, and for what the page's own script asks; for the API
        too where it has the page's accounts."""
        inner = page or path.startswith("/internal/")
        if self.page:
            return (inner or not self.api) and _has_session(app, cookies)
        return inner and any(secrets.compare_digest(value.encode(), self.token.encode()) for _, value in cookies)

    def _cookie(self) -> str:
        return f"{COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Strict"


def _is_its_queue(app: Any, credentials: list[str]) -> bool:
    """gradio 3 runs queued jobs by asking itself, with a password that it drew."""
    token = getattr(app, "queue_token", None)
    return bool(token) and credentials == [f"Bearer {token}"]


def _has_session(app: Any, cookies: Sequence[tuple[str, str]]) -> bool:
    """Whether one of gradio's own cookies is of somebody who logged in."""
    tokens = getattr(app, "tokens", {})
    return any(name.startswith("access-token") and value in tokens for name, value in cookies)


def _accounts(flag: str, text: str | None) -> Iterable[tuple[str, str]]:
    """`user:password,...`; blanks around an account are none of it."""
    for entry in (text or "").split(","):
        user, colon, password = entry.strip().partition(":")
        if not (user or colon):
            continue
        if not (user and colon):
            raise ValueError(f"{flag} takes user:password; there is an account without one of them")
        yield user, password


def _fits(credentials: list[str], pairs: Pairs) -> bool:
    """HTTP Basic; comparisons take the same time for every pair."""
    scheme, _, code = (credentials[0] if len(credentials) == 1 else "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        user, _, password = base64.b64decode(code.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    matches = [
        secrets.compare_digest(user, pair[0].encode()) & secrets.compare_digest(password, pair[1].encode())
        for pair in pairs
    ]
    return any(matches)


def _cookies(headers: list[str]) -> Iterable[tuple[str, str]]:
    for part in ";".join(headers).split(";"):
        name, _, value = part.strip().partition("=")
        yield name, value.strip('"')
