"""Pictures of a training's looks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from standalone.demo import looks


def test_a_log_and_its_samples_become_two_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    lines: list[dict[str, object]] = []
    for step in (0, 100):
        lines.append({"event": "look", "step": step, "adherence": 0.2, "mismatched": 0.1, "ceiling": 0.9})
        lines += [{"event": "step", "step": step + number, "loss": 0.1 / number} for number in range(1, 40)]
        pixels = np.full((16, 24, 3), step, np.uint8)
        pixels[:, :16] = 30  # the map and the true picture, which are the same at every look
        Image.fromarray(pixels).save(samples / f"step-{step:06d}.png")
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    monkeypatch.setattr(sys, "argv", ["looks", str(tmp_path), "--out", str(tmp_path / "out")])
    looks.main()
    with Image.open(tmp_path / "out" / "grid.jpg") as grid:
        assert grid.size == (32, 16), "map, true picture, two samples"
        assert abs(np.asarray(grid).astype(int)[8, 28] - 100).max() < 8
    with Image.open(tmp_path / "out" / "curves.png") as drawn:
        blue = np.asarray(drawn.convert("RGB")).astype(int) - (31, 119, 180)
    for half in np.split(blue, 2, axis=1):
        assert (np.abs(half).sum(-1) < 100).sum() > 20, "a curve of adherence, and one of the loss"
