"""The demo command: its measuring by hand-made pictures, and the whole of it in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from standalone.demo.run import Outcome, inside_of, main, measure

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"input", "map", "without_control", "controlled", "sheet"}


def disc(colour: tuple[int, int, int], background: tuple[int, int, int], x: int = 64) -> np.ndarray:
    image = np.full((128, 128, 3), background, np.uint8)
    cv2.circle(image, (x, 64), 30, colour, -1)
    return image


def outcome(without: np.ndarray, controlled: np.ndarray) -> Outcome:
    drawing = disc((255, 0, 0), (255, 255, 255))
    lines = np.repeat(cv2.Canny(drawing, 100, 200)[..., None], 3, axis=2)
    return measure(drawing, lines, without, controlled, ("blue", "yellow"), 1.0)


def test_a_file_where_a_folder_is_to_be_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.endswith("is a file; choose another one\n")


def test_measures_edges_and_colours() -> None:
    good = outcome(disc((0, 0, 255), (255, 255, 0), x=30), disc((0, 0, 255), (255, 255, 0)))
    assert good.f1_with == 1
    assert good.f1_without < 0.4
    assert good.colours.right
    assert good.colours.error < 1
    assert good.control_acts


def test_no_effect_is_seen() -> None:
    same = disc((0, 0, 255), (255, 255, 0), x=30)
    assert not outcome(same, same.copy()).control_acts
    assert not outcome(disc((0, 0, 255), (255, 255, 0)), same).control_acts


def test_inside_of_lines() -> None:
    lines = np.zeros((40, 40), np.uint8)
    cv2.rectangle(lines, (10, 10), (30, 30), (255,), 1)
    inside = inside_of(lines > 0)
    assert inside[20, 20] == 255
    assert inside[2, 2] == 0
    assert inside[39, 39] == 0
    assert not inside_of(np.zeros((40, 40), bool)).any()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "standalone.demo.run", "--json", "--out", str(out)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False), out


def test_whole_demo_follows_the_drawing(finished: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, out = finished
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["f1_with"] > 0.7
    assert report["f1_with"] > 1.5 * report["f1_without"]
    assert report["colors_right"]
    assert report["color_error"] < 60
    assert set(report["files"]) == NAMES
    for path in report["files"].values():
        assert cv2.imread(path) is not None
    assert {path.name for path in out.iterdir()} == {f"{name}.png" for name in NAMES}


def test_exit_code_tells_that_control_had_no_effect(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "standalone.demo.run", "--json", "--weight", "0", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["f1_with"] == report["f1_without"]
    without, controlled = (cv2.imread(report["files"][name]) for name in ("without_control", "controlled"))
    assert np.array_equal(without, controlled)  # through the engine, weight 0 is bit for bit the picture without a unit
