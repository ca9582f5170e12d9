"""docs/own_photographs.md, followed from the folder to the controlled picture, with the demo's checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_controlnet.training.pictures import read_picture
from standalone.demo.run import MODELS
from standalone.train.cli import main
from tests.standalone.test_server import serving

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_photographs.md"
SMALLER = {
    "steps = 4000": "steps = 2",
    "batch_size = 4": "batch_size = 1",
    "resolution = 512": "resolution = 64",
    "every = 250": "every = 2\nsteps = 2",
    'precision = "bf16"': 'precision = "no"',
    "held_out = 4": "held_out = 1",
    "rank = 64": "rank = 4",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def photograph(number: int) -> Image.Image:
    """Something with light, grain and edges, of a shape of its own."""
    chance = np.random.default_rng(number)
    width, height = (150, 100) if number % 2 else (96, 128)
    light = np.linspace(40, 120, height)[:, None, None] + chance.normal(0, 6, (height, width, 3))
    left, top = int(chance.integers(10, 40)), int(chance.integers(10, 40))
    light[top : top + 40, left : left + 40] += chance.integers(60, 130, 3)
    return Image.fromarray(light.clip(0, 255).astype(np.uint8))


def commands() -> list[list[str]]:
    """Arguments of `launch.py train` in the page's order."""
    lines = [line.split()[3:] for block in blocks("bash") for line in block.splitlines() if " train " in line]
    assert lines == [
        ["photographs.toml", "--plan"],
        ["photographs.toml"],
        ["photographs.toml", "--resume"],
        ["photographs.toml", "--resume", "--push", "YOUR_NAME/my_canny"],
    ]
    return lines


def test_the_tutorial_leads_to_a_controlled_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    listed = re.findall(r"^  (\S+)\.txt +(.*)$", blocks("text")[0], re.MULTILINE)
    assert [name for name, _ in listed] == ["harbour", "orchard"]
    for number, (name, caption) in enumerate([*listed, ("field", "a field"), ("pier", "a pier")]):
        photograph(number).save(tmp_path / "photographs" / f"{name}.jpg")
        (tmp_path / "photographs" / f"{name}.txt").write_text(f"{caption}\n", "utf-8")
    (settings,) = blocks("toml")
    for old, new in SMALLER.items():
        assert settings.count(old) == 1, old
        settings = settings.replace(old, new)
    settings = settings.replace('"model.safetensors"', json.dumps(str(MODELS / "demo.safetensors")))
    (tmp_path / "photographs.toml").write_text(settings, "utf-8")
    planning, training, resuming, _ = commands()
    assert main(planning) == 0
    assert "it fits" in capsys.readouterr().out
    for line in (training, resuming):
        assert main([*line, "--quiet", "--threads", "1"]) == 0
    assert "control" in capsys.readouterr().out
    assert (tmp_path / "trained" / "my_canny.safetensors").is_file()
    assert list((tmp_path / "trained" / "samples").glob("*.png"))
    assert "Control-LoRA" in (tmp_path / "trained" / "README.md").read_text("utf-8")
    (example,) = blocks("python")
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "server", "--nowebui", "--controlnet-dir", str(tmp_path / "trained")) as server:
        for told, here in (("512", "64"), ("127.0.0.1:7860", f"127.0.0.1:{server.port}")):  # a port may have a 512
            assert told in example
            example = example.replace(told, here)
        names: dict[str, Any] = {}
        exec(compile(example, str(PAGE), "exec"), names)
    assert len(names["images"]) == 2, "the picture and its map"
    assert read_picture(tmp_path / "night.png", "night").shape == (64, 64, 3)
