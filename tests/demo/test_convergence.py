"""The trial of where control begins: its shuffled pairs, a run of two steps, and what a second start leaves alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from standalone.demo import convergence
from standalone.train.shapes import read_shapes


def test_a_shuffled_pair_has_the_map_of_another_picture(tmp_path: Path) -> None:
    options = convergence.settings(tmp_path, 0, "demo").data
    true, turned = read_shapes(options), convergence.shuffled(options)
    for own, others in ((true.examples[:20], turned.examples[:20]), (true.held_out, turned.held_out)):
        assert [(one.picture.key, one.captions) for one in own] == [(one.picture.key, one.captions) for one in others]
        for one, other in zip(own[:3], others[:3], strict=True):
            assert one.hint is not None
            assert other.hint is not None
            assert not np.array_equal(one.hint(), other.hint())


def test_a_run_tells_its_curve_and_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"_PICTURES": 16, "_SHOWN": 2, "_EVERY": 2}.items():
        monkeypatch.setattr(convergence, name, value)
    monkeypatch.setattr(convergence, "_APART", 1)
    options = ["--out", str(tmp_path), "--seeds", "0", "--shuffled", "1", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["convergence", *options])
    convergence.main()
    (one,) = json.loads((tmp_path / "convergence.json").read_text("utf-8"))
    assert (one["pairs"], one["seed"]) == (convergence.SHUFFLED, 0)
    assert [step for step, _, _ in one["curve"]] == [0, 2]
    assert one["ceiling"] > one["floor"]
    assert one["convergence"] is None, "two looks show no jump that stays"
    with Image.open(tmp_path / "convergence.png") as drawn:
        assert drawn.size[0] > 400
    capfd.readouterr()
    monkeypatch.setattr(convergence, "run", lambda *_: pytest.fail("it was trained again"))
    convergence.main()
