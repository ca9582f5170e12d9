"""`launch.py find-weight` against a server that answers as a WebUI does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from standalone.measure.find import main


class WebUI(HTTPServer):
    """Adherence is 0.2 + 0.7 x weight²; remembers what it was asked."""

    asked: list[tuple[str, dict[str, Any]]]
    answer: Any = None

    def adherence(self, weight: float) -> float:
        return round(0.2 + 0.7 * weight * weight, 4)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked.append((self.path, body))
        weight = body["alwayson_scripts"]["controlnet"]["args"][1]["weight"]
        unit = {"unit": 1, "adherence": server.adherence(weight), "pictures": []}
        info = {"controlnet": [unit]} if server.answer is None else server.answer
        content = json.dumps({"images": [], "info": json.dumps(info)}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def webui() -> Iterator[WebUI]:
    server = WebUI(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    body = {"prompt": "a heart", "steps": 20, "override_settings": {"CLIP_stop_at_last_layers": 2},
            "alwayson_scripts": {"controlnet": {"args": [{"enabled": False}, {"module": "canny"}]}}}  # fmt: skip
    path = tmp_path / "job.json"
    path.write_text(json.dumps(body), "utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], webui: WebUI, job: Path, *more: str) -> tuple[int, Any, str]:
    url = f"http://127.0.0.1:{webui.server_address[1]}/"
    code = main([str(job), "--url", url, "--unit", "1", "--json", *more])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else None, said.err


def test_the_weight_is_found_on_one_seed(capsys: pytest.CaptureFixture[str], webui: WebUI, job: Path) -> None:
    code, report, _ = run(capsys, webui, job, "--target", "0.6", "--steps", "8")
    assert code == 0
    assert report["reached"]
    assert report["adherence"] == pytest.approx(0.6, abs=0.03)
    assert webui.adherence(report["weight"]) == report["adherence"]
    assert report["floor"] == 0.2
    assert report["jobs"] == len(webui.asked) <= 8
    assert len({body["seed"] for _, body in webui.asked}) == 1
    route, body = webui.asked[0]
    assert route == "/sdapi/v1/txt2img"
    assert body["steps"] == 8
    assert body["override_settings"] == {"CLIP_stop_at_last_layers": 2, "controlnet_measure": True}


def test_out_of_reach(capsys: pytest.CaptureFixture[str], webui: WebUI, job: Path) -> None:
    code, report, _ = run(capsys, webui, job, "--target", "0.99")
    assert code == 1
    assert (report["reached"], report["weight"], report["adherence"]) == (False, 1, 0.9)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "no measure"),
        ({"controlnet": []}, "took no part"),
        ({"controlnet": [{"unit": 1, "adherence": None, "pictures": [{"problem": "no weights"}]}]}, "no weights"),
    ],
)
def test_what_cannot_be_measured_is_said(
    capsys: pytest.CaptureFixture[str], webui: WebUI, job: Path, answer: Any, words: str
) -> None:
    webui.answer = answer
    code, _, said = run(capsys, webui, job, "--target", "0.5")
    assert code == 2
    assert words in json.loads(said)["error"]


def test_wrong_jobs(capsys: pytest.CaptureFixture[str], tmp_path: Path, job: Path) -> None:
    wrong = tmp_path / "wrong.json"
    for text, words in (("{", "no request"), ("[]", "no request"), ("{}", "no unit 0")):
        wrong.write_text(text, "utf-8")
        assert main([str(wrong), "--target", "0.5"]) == 2
        assert words in capsys.readouterr().err
    assert main([str(job), "--target", "0.5", "--unit", "1", "--url", "http://127.0.0.1:1"]) == 2
    assert "--api" in capsys.readouterr().err
