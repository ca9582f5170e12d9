"""The host's logins before our routes, and answers while every thread of the server's pool waits."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib_controlnet.webapi.logins import host_accounts
from lib_controlnet.webapi.routes import mount
from tests.surface_services import make_services

POOL = 40
"""Threads in which a server runs plain handlers."""


def accounts(**options: Any) -> Any:
    return host_accounts(SimpleNamespace(**options))


def served(folder: Path, auth: Any, lock: Any = None) -> FastAPI:
    app = FastAPI()
    app.tokens = {"of-anna": "anna"}  # type: ignore[attr-defined]
    mount(app, make_services(folder), auth, lock or threading.Lock())
    return app


def test_no_login_where_the_host_has_none() -> None:
    assert accounts() is None
    assert accounts(api_auth=None, gradio_auth="", gradio_auth_path=None) is None


def test_blanks_around_an_account_are_none_of_it() -> None:
    """The host's own API keeps them, in user and password alike; what opens that opens ours."""
    assert set(accounts(api_auth="a:b, c:d ,e: f:g")) == {
        ("a", "b"), (" c", "d "), ("c", "d"), ("e", " f:g"),
    }  # fmt: skip


@pytest.mark.parametrize("text", ["user", "user,other", ","])
def test_an_account_without_a_colon_leaves_nothing_open(text: str, tmp_path: Path) -> None:
    found = accounts(api_auth=text)
    assert found == []
    client = TestClient(served(tmp_path, found))
    assert client.get("/controlnet/version").status_code == 401
    assert client.get("/controlnet/version", auth=("user", "")).status_code == 401


def test_the_pages_accounts_count_where_the_api_has_none(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_text("bob:word\n\ncarl:x,dora:y\n", "utf-8")
    found = accounts(gradio_auth=" anna:secret ", gradio_auth_path=str(file))
    assert found.of_page
    assert set(found) >= {("anna", "secret"), ("bob", "word"), ("carl", "x"), ("dora", "y")}
    client = TestClient(served(tmp_path, found))
    assert client.get("/controlnet/version").status_code == 401
    assert client.get("/controlnet/version", auth=("dora", "y")).status_code == 200
    for name in ("access-token", "access-token-unsecure", "access-token-unsecure-17"):
        assert client.get("/controlnet/version", headers={"cookie": f"{name}=of-anna"}).status_code == 200
        assert client.get("/controlnet/version", headers={"cookie": f"{name}=stolen"}).status_code == 401
    assert client.get("/controlnet/version", headers={"cookie": "other=of-anna"}).status_code == 401


def test_the_page_does_not_open_what_the_api_closes(tmp_path: Path) -> None:
    found = accounts(api_auth="robot:key", gradio_auth="anna:secret")
    client = TestClient(served(tmp_path, found))
    assert client.get("/controlnet/version", headers={"cookie": "access-token=of-anna"}).status_code == 401
    assert client.get("/controlnet/version", auth=("anna", "secret")).status_code == 401
    assert client.get("/controlnet/version", auth=("robot", "key")).status_code == 200


@pytest.mark.parametrize("auth", [None, [("robot", "key")]])
def test_our_routes_answer_while_jobs_hold_every_thread(tmp_path: Path, auth: Any) -> None:
    """60 jobs wait in a host whose handlers are plain functions, as A1111's: its pool has no thread left."""
    free = threading.Event()
    begun: list[float] = []

    def job() -> str:
        begun.append(time.monotonic())
        free.wait(60)
        return "done"

    app = served(tmp_path, auth)
    app.add_api_route("/sdapi/v1/txt2img", job, methods=["POST"])
    routes = ("version", "model_list", "module_list", "control_types", "settings")
    seconds: dict[str, float] = {}

    async def use() -> None:
        transport = httpx.ASGITransport(app=app)
        login = httpx.BasicAuth("robot", "key") if auth else None
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://server", timeout=60, auth=login) as client,
            anyio.create_task_group() as jobs,
        ):
            for _ in range(60):
                jobs.start_soon(client.post, "/sdapi/v1/txt2img")
            while len(begun) < POOL:
                await anyio.sleep(0.01)
            for route in routes:
                start = time.monotonic()
                with anyio.move_on_after(10):
                    answer = await client.get(f"/controlnet/{route}")
                    assert answer.status_code == 200
                seconds[route] = time.monotonic() - start
            assert len(begun) == POOL
            free.set()

    try:
        anyio.run(use)
    finally:
        free.set()
    assert max(seconds.values()) < 1, seconds
