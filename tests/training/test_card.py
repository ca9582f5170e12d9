"""What a training leaves for others: the card, a run of Weights & Biases, and an upload to a hub on the loopback."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load

from lib_controlnet.training import log
from lib_controlnet.training.card import Facts, card
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.hub import push, uploads
from lib_controlnet.training.pictures import read_picture
from standalone.train.cli import main

from .tiny import SIDE, config, make_pairs, session


class Hub(ThreadingHTTPServer):
    """As much of huggingface.co as its client asks for to make a repository and to commit files to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuses:
            return self._answer({"error": "Invalid credentials"}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.repositories[name] = bool(asked.get("private", asked.get("visibility") == "private"))
            return self._answer({"url": f"{self.server.address}/{name}", "name": name, "id": name})
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            return self._answer({"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                                           for one in asked]})  # fmt: skip
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        assert "/commit/" in self.path, self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self._answer({"commitUrl": f"{self.server.address}/me/made/commit/1", "commitOid": "1", "success": True})

    def do_GET(self) -> None:
        self._answer({"id": "me/made", "sha": "0", "siblings": [], "private": True})

    def _answer(self, content: Any, code: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # only the loopback is reached
    made = Hub()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def head_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---")[1])


def test_a_training_leaves_a_card_and_goes_to_a_hub(hub: Hub, checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = config(checkpoint, pairs, out, train={"steps": 2, "batch_size": 1}, samples={"every": 2},
                      output={"license": "Apache-2.0", "control_type": "canny", "formats": ["v1.1", "diffusers"],
                              "title": "a small one"})  # fmt: skip
    outcome = session(settings).run()
    text = outcome.files["card"].read_text("utf-8")
    head = head_of(text)
    assert (head["license"], head["library_name"]) == ("apache-2.0", "diffusers")
    assert [one["text"] for one in head["widget"]] == ["disc 0", "disc 5"]
    grid = read_picture(outcome.files["samples"], "grid")
    for row, one in enumerate(head["widget"]):
        made = read_picture(out / one["output"]["url"], "sample")
        assert np.array_equal(made, grid[row * SIDE : (row + 1) * SIDE, 2 * SIDE :])
    for words in ("# a small one", "steered by canny maps", "4 pairs", f"| with another picture's | "
                  f"{outcome.adherence_mismatched:.3f} |", "| `batch_size` | `1` |", checkpoint.name):  # fmt: skip
        assert words in text, words
    address = push("me/made", uploads(out, outcome.files), endpoint=hub.address)
    assert address == f"{hub.address}/me/made"
    assert hub.repositories == {"me/made": True}, "private unless asked otherwise"
    assert hub.tokens == {"Bearer hf_secret"}
    assert hub.files["README.md"].decode() == text
    assert {"config.json", "diffusion_pytorch_model.safetensors", "images/sample-0.png"} <= set(hub.files)
    assert load(hub.files["made.safetensors"])
    hub.refuses = True
    with pytest.raises(TrainingError, match="cannot be uploaded"):
        push("me/made", uploads(out, outcome.files), endpoint=hub.address)


def test_the_command_uploads_a_finished_training(
    hub: Hub, checkpoint: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"""
[base]
checkpoint = {json.dumps(str(checkpoint))}
[control]
kind = "lllite"
rank = 4
[data]
folder = {json.dumps(str(pairs))}
resolution = {SIDE}
held_out = 1
[train]
steps = 1
batch_size = 1
[samples]
every = 0
[output]
folder = "out"
name = "made"
"""
    (tmp_path / "a.toml").write_text(text, "utf-8")
    line = [str(tmp_path / "a.toml"), "--json", "--quiet", "--push", "me/small", "--public", "--hub", hub.address]
    assert main(line) == 0
    assert json.loads(capsys.readouterr().out)["pushed"] == f"{hub.address}/me/small"
    assert hub.repositories == {"me/small": False}
    assert {"README.md", "made.safetensors"} == set(hub.files)
    assert "ControlLLLite" in hub.files["README.md"].decode()


def test_the_card_tells_how_many_were_held_out(checkpoint: Path, tmp_path: Path) -> None:
    """Of one pair none, whatever was wished."""
    settings = config(
        checkpoint, make_pairs(tmp_path / "pairs", 1), tmp_path / "out", data={"held_out": 4}, train={"steps": 1}
    )
    session(settings).run()
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "1 pairs" in text
    assert "; 0 held out." in text


def test_nothing_is_uploaded_without_a_model() -> None:
    with pytest.raises(TrainingError, match="no model to upload"):
        push("me/none", {"README.md": Path("README.md")})


@pytest.mark.parametrize(
    ("text", "wanted"), [("", {}), ("MIT", {"license": "mit"}), ('our "own": words', {"license": "other"})]
)
def test_the_licence_is_one_that_hubs_read(text: str, wanted: dict[str, str], tmp_path: Path) -> None:
    settings = config(Path("a.safetensors"), Path("b"), tmp_path, output={"license": text})
    head = head_of(card(settings, Facts("stable-diffusion-v1", 3, 9, {}), ()))
    assert {key: head[key] for key in ("license",) if key in head} == wanted
    assert head.get("license_name", text) == text


class FakeWandB:
    """What is asked of the package."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.finished = False

    def init(self, **options: Any) -> FakeWandB:
        self.asked = options
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((values, step))

    def Image(self, path: str) -> str:  # noqa: N802
        return path

    def finish(self) -> None:
        self.finished = True


def test_curves_and_grids_go_to_wandb(
    checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandB()
    monkeypatch.setattr(log, "wandb_package", lambda: fake)
    monkeypatch.setattr("lib_controlnet.training.needed.wandb_package", lambda: fake)
    settings = config(checkpoint, pairs, tmp_path / "out", train={"steps": 2}, samples={"every": 2},
                      output={"wandb": "offline"})  # fmt: skip
    session(settings).run()
    assert (fake.asked["mode"], fake.asked["name"], fake.finished) == ("offline", "made", True)
    names = {name for values, _ in fake.logged for name in values}
    assert {"step/loss", "step/rate", "look/adherence", "look/mismatched", "samples"} <= names
    steps = [step for _, step in fake.logged]
    assert steps == sorted(steps)


def test_an_offline_run_is_a_file(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    """With the package itself, where it is installed."""
    pytest.importorskip("wandb")
    settings = config(checkpoint, pairs, tmp_path / "out", train={"steps": 2}, samples={"every": 2},
                      output={"wandb": "offline"})  # fmt: skip
    session(settings).run()
    (run,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    assert next(run.glob("run-*.wandb")).stat().st_size > 1000


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainingError, match="pip install wandb"):
        log.wandb_package()


def test_packages_that_do_not_fit_together_are_told(
    checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A diffusers made for another huggingface_hub is found out by its import, in the midst of the training."""

    def unfit(*_arguments: object) -> None:
        raise ImportError("cannot import name 'resolve_revision' from 'huggingface_hub'")

    monkeypatch.setattr("lib_controlnet.training.session.load_base", unfit)
    text = f'[base]\ncheckpoint = "{checkpoint.as_posix()}"\n[data]\nfolder = "{pairs.as_posix()}"\nheld_out = 1\n'
    (tmp_path / "a.toml").write_text(text + '[train]\nsteps = 1\n[output]\nfolder = "out"\nname = "made"\n', "utf-8")
    assert main([str(tmp_path / "a.toml"), "--quiet"]) == 1
    told = capsys.readouterr().err
    assert all(part in told for part in ("do not fit together", "resolve_revision", sys.executable))
    assert "Traceback" not in told
