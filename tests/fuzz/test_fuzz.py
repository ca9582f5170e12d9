"""The short run, in process, with requests that hypothesis chooses; the long one is `python -m tests.fuzz`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from standalone import boot

from .grammar import Request, job_schemas, request
from .oracle import Answer, Oracle

pytest.importorskip("fastapi")

SLOW = 60.0


class Server:
    """The embedded host's routes, called in process."""

    def __init__(self, client: Any, errors: Any) -> None:
        self._client = client
        self.errors = errors
        """The host's records of what it has swallowed."""
        self.oracle = Oracle(self.send, SLOW)
        self.schema = job_schemas(client.get("/openapi.json").json())

    def send(self, made: Request) -> Answer:
        body = None if made.body is None else json.dumps(made.body).encode()
        began = time.monotonic()
        answer = self._client.request(
            made.method, made.path, content=body, headers={"Content-Type": "application/json"}
        )
        return Answer(answer.status_code, answer.text, time.monotonic() - began)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    with boot(data_dir=tmp_path_factory.mktemp("data"), api=False, ui=False, nested=True) as app:
        web = FastAPI()
        app.attach_api(web)
        app.modules("script_callbacks").app_started_callback(None, web)
        yield Server(TestClient(web, raise_server_exceptions=False), app.modules("errors"))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_no_request_crashes_or_is_silently_wrong(server: Server, seed: int) -> None:
    made = request(Random(seed), server.schema)
    answer = server.send(made)
    wrong = server.oracle.judge(made, answer)
    wrong = wrong or "".join(record["exception"] for record in server.errors.exception_records)
    server.errors.exception_records.clear()
    assert not wrong, f"{wrong}\n{json.dumps(made.body)[:3000]}"


def test_the_uncontrolled_pictures_are_what_they_were(server: Server) -> None:
    assert not server.oracle.unchanged()
