"""Prompts that the cache has no room for are encoded when they are visited, to the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_controlnet.training.state import load_state

from .tiny import Memory, config, session

_EACH = 2 * 77 * 64 / 2**30
"""GiB of one prompt of the tiny checkpoint."""


def stored(out: Path) -> int:
    return sum(len(load_file(str(path))) for path in (out / "cache" / "train").glob("texts-*.safetensors"))


@pytest.mark.parametrize("room", [0.0, 2.5 * _EACH])
def test_the_cache_of_prompts_is_bounded(room: float, checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    made: dict[str, Path] = {}
    for name, gib in (("whole", 1.0), ("bounded", room)):
        made[name] = tmp_path / name
        settings = config(checkpoint, pairs, made[name], data={"text_cache": gib},
                          train={"steps": 3, "average_decay": 0.0, "empty_prompts": 0.0})  # fmt: skip
        session(settings).run()
    assert stored(made["whole"]) == 5, "four prompts and the empty one"
    assert stored(made["bounded"]) == max(1, int(room / _EACH))
    states = [load_state(folder) for folder in made.values()]
    for one, other in zip(states[0]["trained"], states[1]["trained"], strict=True):  # type: ignore[index]
        assert torch.allclose(one, other, atol=1e-4)


def test_what_it_takes_is_said_before_it_starts(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    watcher = Memory(stop_after=1)
    out = tmp_path / "out"
    session(config(checkpoint, pairs, out), watcher, planned=True).run()
    assert watcher.said[0].startswith("memory on ")
    assert "a step " in watcher.said[0]
    assert "fit" in watcher.said[0]
    assert '"event": "plan"' in (out / "log.jsonl").read_text("utf-8")
