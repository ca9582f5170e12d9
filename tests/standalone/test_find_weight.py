"""`launch.py find-weight` against a server that answers as a WebUI does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lib_controlnet.core.study import Question, Study, read_study
from standalone.measure.find import main

FOUND = {"what": "weight", "unit": 1, "target": 0.6, "weight": 0.75, "adherence": 0.594, "reached": True, "floor": 0.2,
         "guidance_end": 0.5, "curve": [[0.0, 0.2], [0.75, 0.594], [1.0, 0.9]],
         "similarity": [[0.75, 0.281]]}  # fmt: skip


class WebUI(HTTPServer):
    """Finds out FOUND, unless told otherwise; remembers what it was asked."""

    asked: list[tuple[str, dict[str, Any]]]
    answer: Any


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        content = json.dumps({"images": [], "info": json.dumps(server.answer)}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def webui() -> Iterator[WebUI]:
    server = WebUI(("127.0.0.1", 0), Handler)
    server.asked, server.answer = [], {"controlnet_study": FOUND}
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


def test_the_question_goes_with_the_job_and_the_answer_is_told(
    capsys: pytest.CaptureFixture[str], webui: WebUI, job: Path
) -> None:
    code, report, _ = run(capsys, webui, job, "--target", "0.6", "--steps", "8", "--shorten")
    assert (code, report) == (0, FOUND)
    ((route, body),) = webui.asked
    assert route == "/sdapi/v1/txt2img"
    (first, second, asked) = body["alwayson_scripts"]["controlnet"]["args"]
    assert (first, second) == ({"enabled": False}, {"module": "canny"})
    question = read_study(asked["study"])
    assert question == Study(Question.weight, unit=1, target=0.6, highest=1.0, steps=8, shorten=True)
    assert (body["steps"], body["batch_size"], body["n_iter"]) == (20, 1, 1)


def test_it_is_told_in_words(capsys: pytest.CaptureFixture[str], webui: WebUI, job: Path) -> None:
    main([str(job), "--url", f"http://127.0.0.1:{webui.server_address[1]}", "--unit", "1", "--target", "0.6"])
    assert capsys.readouterr().out.splitlines() == [
        "weight 0       adherence 0.200",
        "weight 0.75    adherence 0.594  similarity to the prompt 0.281",
        "weight 1       adherence 0.900",
        "weight 0.75: adherence 0.594 (within 0.03 of the target)",
        "ending control step 0.5 is enough",
    ]


def test_out_of_reach(capsys: pytest.CaptureFixture[str], webui: WebUI, job: Path) -> None:
    webui.answer = {"controlnet_study": {**FOUND, "reached": False}}
    assert run(capsys, webui, job, "--target", "0.99")[0] == 1


@pytest.mark.parametrize(
    ("answer", "words"), [({}, "no weight"), ({"controlnet_study": {"stopped": True}}, "stopped in the WebUI")]
)
def test_an_answer_without_a_weight_is_said(
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
