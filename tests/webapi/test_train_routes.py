"""`/controlnet/train` over a server with real trainings of a random, tiny checkpoint."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from annotator.sd_controlnet import registry
from lib_controlnet.engine.preprocess import PreprocessRunner
from lib_controlnet.training.jobs import TrainingJobs
from lib_controlnet.webapi.train_routes import mount
from tests.standalone.tiny_checkpoint import write
from tests.training.tiny import SIDE, make_pairs

ROOT = Path(__file__).resolve().parents[2]


class Server:
    def __init__(self, folder: Path, allowed: bool = True, auth: Any = None) -> None:
        self.folder, self.allowed, self.lock = folder, allowed, threading.RLock()
        self.jobs = TrainingJobs(ROOT, preprocessor=PreprocessRunner(registry.discover(), lambda: None).entry)
        app = FastAPI()
        mount(app, self.jobs, lambda key, default: self.allowed, auth, self.lock)
        self.client = TestClient(app)

    def config(self, **train: Any) -> dict[str, Any]:
        return {
            "base": {"checkpoint": str(self.folder / "base" / "tiny.safetensors"), "hint_widths": [8, 8, 8, 16]},
            "data": {"folder": str(self.folder / "pairs"), "resolution": SIDE, "held_out": 2, "preprocessor": "canny"},
            "train": {"steps": 4, "batch_size": 1, **train},
            "samples": {"every": 2, "steps": 2},
            "output": {"folder": str(self.folder / "out"), "name": "made", "save_every": 1000},
        }

    def wait(self, until: Any, seconds: float = 120) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.client.get("/controlnet/train").json()
            if until(status):
                return status
            time.sleep(0.2)
        raise AssertionError(f"not in time: {status}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write(tmp_path / "base")
    make_pairs(tmp_path / "pairs")
    made = Server(tmp_path)
    yield made
    made.allowed = True
    made.client.post("/controlnet/train/stop")
    made.jobs.wait(60)


def test_a_training_is_started_paused_and_ended(server: Server) -> None:
    client = server.client
    assert client.get("/controlnet/train").json()["state"] == "idle"
    config = server.config(steps=100_000)
    answer = client.post("/controlnet/train", json={"config": config})
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "running"
    assert client.post("/controlnet/train", json={"config": config}).status_code == 409
    seen = server.wait(lambda status: status["step"] >= 3 or status["state"] != "running")
    assert seen["state"] == "running", seen
    assert seen["curve"][0][0] == 0
    assert seen["loss"] > 0
    client.post("/controlnet/train/stop")
    paused = server.wait(lambda status: status["state"] != "running")
    assert (paused["state"], paused["error"]) == ("stopped", "")
    assert Path(paused["model"]).is_file()
    assert Path(paused["grid"]).is_file()
    last = server.config(steps=paused["step"] + 2)
    assert client.post("/controlnet/train", json={"config": last, "resume": True}).status_code == 200
    ended = server.wait(lambda status: status["state"] != "running")
    assert (ended["state"], ended["step"]) == ("finished", paused["step"] + 2)


def test_what_fails_in_the_training_is_told(server: Server) -> None:
    config = server.config()
    config["base"]["checkpoint"] = str(server.folder / "pairs" / "prompt.json")
    assert server.client.post("/controlnet/train", json={"config": config}).status_code == 200
    ended = server.wait(lambda status: status["state"] != "running")
    assert ended["state"] == "failed"
    assert "is not a model file" in ended["error"]


def test_data_and_settings_are_checked_before_the_start(server: Server) -> None:
    answer = server.client.post("/controlnet/train/check", json={"config": server.config()}).json()
    assert (answer["pairs"], answer["held_out"], answer["problems"]) == (4, 2, [])
    (server.folder / "pairs" / "source" / "1.png").unlink()
    answer = server.client.post("/controlnet/train/check", json={"config": server.config()}).json()
    assert answer["problems"] == ['"target/1.png" has no control map (1.png)']
    refused = server.client.post("/controlnet/train", json={"config": server.config()})
    assert refused.status_code == 422
    assert "has no control map" in refused.json()["detail"]
    wrong = server.client.post("/controlnet/train", json={"config": server.config(stepz=3)})
    assert wrong.status_code == 422
    assert "stepz" in wrong.json()["detail"]


def test_it_is_off_unless_allowed(server: Server) -> None:
    server.allowed = False
    client = server.client
    for answer in (
        client.get("/controlnet/train"),
        client.post("/controlnet/train", json={"config": server.config()}),
        client.post("/controlnet/train/check", json={"config": server.config()}),
        client.post("/controlnet/train/stop"),
    ):
        assert answer.status_code == 403
        assert "Allow training" in answer.json()["detail"]
    assert not (server.folder / "out").exists()


def test_the_hosts_login_is_asked_for(tmp_path: Path) -> None:
    client = Server(tmp_path, auth=[("user", "secret")]).client
    assert client.get("/controlnet/train").status_code == 401
    assert client.get("/controlnet/train", auth=("user", "secret")).status_code == 200


def test_a_start_waits_for_the_pictures_being_made(server: Server) -> None:
    """The host's queue lock is held by a generation: the training begins when it is free."""
    answers: list[Any] = []

    def start() -> None:
        answers.append(server.client.post("/controlnet/train", json={"config": server.config()}))

    caller = threading.Thread(target=start)
    with server.lock:
        caller.start()
        time.sleep(0.5)
        assert server.jobs.status().state == "idle"
    caller.join(60)
    assert answers[0].status_code == 200
    assert server.wait(lambda status: status["state"] != "running")["state"] == "finished"


@pytest.mark.parametrize("section", ["data", "samples"])
@pytest.mark.parametrize("path", ["train", "train/check"])
def test_an_unknown_preprocessor_is_told_at_once(server: Server, section: str, path: str) -> None:
    config = server.config()
    config[section]["preprocessor"] = "cany"
    answer = server.client.post(f"/controlnet/{path}", json={"config": config})
    assert 400 <= answer.status_code < 500
    assert f"{section}.preprocessor" in answer.text
    assert "cany" in answer.text
    assert server.client.get("/controlnet/train").json()["state"] == "idle"
