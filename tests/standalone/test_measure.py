"""`launch.py measure`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from standalone.measure.cli import main
from tests.measure import maps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with their lines, those of the second a pixel to the right."""
    for name in ("pictures", "maps"):
        (tmp_path / name).mkdir()
    for number in range(2):
        picture = maps.smooth(256, 320, number)
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), picture[:, :, ::-1])
        cv2.imwrite(str(tmp_path / "maps" / f"{number}.png"), np.roll(cv2.Canny(picture, 100, 200), number, 1))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, Any, str]:
    code = main([str(part) for part in argv])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out.startswith("{") else said.out, said.err


def test_one_object_with_each_metric_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "errors"
    code, report, _ = run(capsys, folder / "pictures", "--maps", folder / "maps", "--preprocessor", "canny", "--json",
                          "--out", out)  # fmt: skip
    assert code == 0
    first, second = report["pictures"]
    assert (first["f1"], first["f1_tolerant"], first["ms_ssim"]) == (1, 1, 1)
    assert second["f1"] < 0.6
    assert second["f1_tolerant"] > 0.98
    assert report["mean"]["f1"] == pytest.approx((first["f1"] + second["f1"]) / 2, abs=1e-4)
    assert Path(first["picture"]).name == Path(first["map"]).name == "0.png"
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png"]


def test_one_map_for_all_and_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, folder / "pictures", "--maps", folder / "maps" / "0.png", "--preprocessor", "canny")
    assert code == 0
    assert "f1_tolerant" in text
    assert "detector: canny, resolution 256" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--preprocessor", "cany"), "cany"),
        (("--preprocessor", "none"), "name a preprocessor"),
        (("--preprocessor", "canny", "--param", "sigma=2"), "sigma"),
    ],
)
def test_wrong_command_lines(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    code, _, said = run(capsys, folder / "pictures", "--maps", folder / "maps", "--json", *arguments)
    assert code == 2
    assert words in json.loads(said)["error"]


def test_a_picture_without_a_map(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "maps" / "1.png").unlink()
    code, _, said = run(capsys, folder / "pictures", "--maps", folder / "maps", "--preprocessor", "canny")
    assert code == 2
    assert '"1"' in said


def test_what_cannot_be_read_is_named_and_the_rest_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pictures" / "1.png").write_bytes(b"no picture")
    code, report, said = run(
        capsys, folder / "pictures", "--maps", folder / "maps", "--preprocessor", "canny", "--json"
    )
    assert code == 1
    assert len(report["pictures"]) == len(report["failed"]) == 1
    assert "1.png" in said
