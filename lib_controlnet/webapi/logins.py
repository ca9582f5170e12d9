"""Who may use our routes. Hosts protect only routes that they add themselves: their logins are asked for here."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials

_GIVEN_LOGIN: Any = Depends(HTTPBasic(auto_error=False))
_COOKIE = "access-token"
"""What the names of gradio's cookies of somebody who logged in on the page begin with."""


class Accounts(list[tuple[str, str]]):
    """(user, password) pairs. `of_page`: they are the page's, so whoever is logged in there may use our routes."""

    def __init__(self, pairs: Sequence[tuple[str, str]], of_page: bool = False) -> None:
        super().__init__(pairs)
        self.of_page = of_page


def host_accounts(options: Any) -> Accounts | None:
    """The accounts of --api-auth, else those of --gradio-auth and --gradio-auth-path; None where there are none.

    `options`: the host's command line. Blanks around an account are none of it; the host's own API keeps them, so what
    opens that opens ours. An account without a colon opens nothing, and leaves nothing open either.
    """
    if getattr(options, "api_auth", None):
        return Accounts(_pairs([options.api_auth]))
    texts = [text for text in (getattr(options, "gradio_auth", None),) if text]
    path = getattr(options, "gradio_auth_path", None)
    if path:
        with open(path, encoding="utf-8") as file:
            texts += file.readlines()
    return Accounts(_pairs(texts), of_page=True) if any(text.strip() for text in texts) else None


def login_check(accounts: Sequence[tuple[str, str]]) -> Callable[..., Awaitable[None]]:
    """A dependency that lets in only these accounts; comparisons take the same time for every pair.

    It needs no thread of the server's pool, which jobs that wait may have used up.
    """
    pairs = [(user.encode(), password.encode()) for user, password in accounts]
    of_page = bool(getattr(accounts, "of_page", False))

    async def check(request: Request, given: HTTPBasicCredentials | None = _GIVEN_LOGIN) -> None:
        if of_page and _is_logged_in(request):
            return
        user, password = (given.username.encode(), given.password.encode()) if given else (b"", b"")
        matches = [secrets.compare_digest(user, pair[0]) & secrets.compare_digest(password, pair[1]) for pair in pairs]
        if given is None or not any(matches):
            detail = "Incorrect username or password" if given else "Not authenticated"
            raise HTTPException(401, detail, headers={"WWW-Authenticate": "Basic"})

    return check


def _is_logged_in(request: Request) -> bool:
    tokens: Any = getattr(request.app, "tokens", None) or {}
    return any(name.startswith(_COOKIE) and value in tokens for name, value in request.cookies.items())


def _pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    entries = [entry for text in texts for entry in text.split(",")]
    kept = dict.fromkeys(x for entry in entries for x in (entry.strip(), entry.rstrip("\r\n")) if ":" in x)
    return [(user, password) for user, _, password in (entry.partition(":") for entry in kept)]
