"""What a checkpoint cannot know of a prompt, and what is said of a job's end: without a server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, json
from pathlib import Path
from types import SimpleNamespace
import torch
from standalone import boot
app = boot(data_dir=sys.argv[1], ui=False, api=False)
words, results, errors = (app.modules(x) for x in ("known_words", "ui_results", "errors"))
model = app.modules("shared").sd_model

def refused(prompt, asked=model):
    try:
        words.refuse_unknown(prompt, asked)
    except errors.WrongRequest as e:
        return str(e)
    return ""

report = {prompt: refused(prompt) for prompt in json.loads(sys.argv[2])}
trained = SimpleNamespace(cond_stage_model=SimpleNamespace(
    tokenizer=model.cond_stage_model.tokenizer,
    transformer=SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(49408, 4))))
report["trained"] = refused("a castle in Lapland", trained)
report["no encoder"] = refused("a castle", SimpleNamespace())
state = SimpleNamespace(interrupted=False, stopping_generation=False, skipped=False, stopped_at=None)
report["ended"] = results.stopped_html(state)
state.skipped = True
report["skipped"] = results.stopped_html(state)
state.interrupted, state.stopped_at = True, (1, 3, 7, 20)
report["interrupted"] = results.stopped_html(state)
state.interrupted, state.stopping_generation = False, True
report["stopping"] = results.stopped_html(state)
report["texts"] = [results.text_of('{"infotexts": ["x", "y"]}', index) for index in ("1", "7", "-1", "")]
report["plain"] = results.text_of("a heart\\nSteps: 3", "0")
report["folder"] = results.open_folder(Path(sys.argv[1]) / "none <b>")
print("REPORT" + json.dumps(report))
"""
KNOWN = (
    "",
    "a red heart on a gray background",
    "A RED Heart, best quality, extremely detailed",
    "a cyan star with a blue background",
    "(red:1.3) [heart:star:0.5] AND a blue square BREAK lowres",
    "a photo of a heart <lora:castle:0.7>",
    "a heart, 128 x 128"[:7],
)
UNKNOWN = {
    "a castle": ["castle"],
    "a red castle, a red Castle and a cat": ["castle", "cat"],
    "(dragon:1.2) on a [knight|red] background": ["dragon", "knight"],
    "ein rotes Herz": ["ein", "rotes", "herz"],
    "красное сердце": ["красное", "сердце"],
    "hearts": ["hearts"],
    "a high-res castle-like star": ["castle", "like"],
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    import json

    prompts = json.dumps([*KNOWN, *UNKNOWN])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("words")), prompts],
        capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
    )  # fmt: skip
    lines = [x for x in done.stdout.splitlines() if x.startswith("REPORT")]
    assert lines, done.stdout + done.stderr
    return json.loads(lines[0].removeprefix("REPORT"))


@pytest.mark.parametrize("prompt", KNOWN)
def test_prompts_of_known_words_pass(report: dict[str, str], prompt: str) -> None:
    assert report[prompt] == ""


@pytest.mark.parametrize("prompt", UNKNOWN)
def test_each_unknown_word_is_named_once(report: dict[str, str], prompt: str) -> None:
    said = report[prompt]
    assert re.findall(r'"([^"]+)"', said) == UNKNOWN[prompt]
    assert all(word in said for word in ("heart", "yellow", "background"))


def test_checkpoints_that_know_all_words_are_left_alone(report: dict[str, str]) -> None:
    assert report["trained"] == report["no encoder"] == ""


def test_a_job_that_was_stopped_says_where(report: dict[str, str]) -> None:
    assert report["ended"] == ""
    assert "skipped" in report["skipped"]
    assert "Interrupted at step 7 of 20, in part 2 of 3" in report["interrupted"]
    assert "Stopped after the part that ran, in part 2 of 3" in report["stopping"]


def test_parameters_are_those_of_the_picture_that_is_shown(report: dict[str, object]) -> None:
    assert report["texts"] == ["y", "x", "x", "x"]
    assert report["plain"] == "a heart\nSteps: 3"


def test_a_folder_that_is_not_there_is_said(report: dict[str, str]) -> None:
    assert "the first picture makes it" in report["folder"]
    assert "<b>" not in report["folder"]
