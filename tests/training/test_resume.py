"""Whatever ends a training, it goes on to the bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.state import load_state, save_state, states

from .killed import train
from .tiny import Memory, config, session

KILLS, STEPS = 8, 40


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The exported model, which holds the averaged weights."""
    return load_file(str(folder / "made.safetensors"))


@pytest.mark.skipif(os.name == "nt", reason="fork and SIGKILL are POSIX's")
def test_killed_many_times_and_resumed_equals_the_uninterrupted(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    program = Path(__file__).with_name("killed.py")
    line = [sys.executable, str(program), str(checkpoint), str(pairs), str(tmp_path / "killed"), str(KILLS), str(STEPS)]
    answer = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert answer.returncode == 0, answer.stderr[-3000:]
    report = json.loads(answer.stdout.splitlines()[-1])
    assert report["kills"] == KILLS
    assert len(set(report["steps_at_kills"])) > 3, "the kills must fall on different steps"
    train(checkpoint, pairs, tmp_path / "whole", STEPS)
    one, other = load_state(tmp_path / "killed"), load_state(tmp_path / "whole")
    assert one is not None
    assert other is not None
    assert one["step"] == other["step"] == STEPS
    assert all(torch.equal(a, b) for a, b in zip(one["trained"], other["trained"], strict=True))
    ours, theirs = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    logs = [(tmp_path / name / "log.jsonl").read_text("utf-8").splitlines() for name in ("killed", "whole")]
    steps = [[line["loss"] for line in map(json.loads, log) if line["event"] == "step"] for log in logs]
    assert steps[0] == steps[1]
    assert len(steps[0]) == STEPS


def test_a_stopped_training_goes_on(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    stopped = config(checkpoint, pairs, tmp_path / "stopped", samples={"every": 3})
    first = session(stopped, Memory(stop_after=3)).run()
    assert (first.steps, first.stopped) == (3, True)
    watcher = Memory()
    second = session(stopped, watcher, resume=True).run()
    assert (watcher.first, second.steps, second.stopped) == (3, 8, False)
    whole = config(checkpoint, pairs, tmp_path / "whole", samples={"every": 3})
    session(whole).run()
    theirs = weights(tmp_path / "whole")
    assert all(torch.equal(value, theirs[key]) for key, value in weights(tmp_path / "stopped").items())


def test_other_settings_do_not_go_on_from_a_state(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    session(config(checkpoint, pairs, tmp_path / "out")).run()
    other = config(checkpoint, pairs, tmp_path / "out", train={"batch_size": 1})
    shutil.rmtree(tmp_path / "out" / "cache")
    with pytest.raises(TrainingError, match=r"train\.batch_size: 2 then, 1 now"):
        session(other, resume=True).run()
    assert not list((tmp_path / "out").rglob("latents-*.safetensors")), "refused before the work of encoding"
    longer = config(checkpoint, pairs, tmp_path / "out", train={"steps": 9})
    assert session(longer, resume=True).run().steps == 9


def test_starting_anew_keeps_the_earlier_training(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    session(config(checkpoint, pairs, out)).run()
    before = weights(out)
    session(config(checkpoint, pairs, out, train={"seed": 1})).run()
    assert all(torch.equal(value, before[key]) for key, value in weights(out / "earlier-1").items())
    assert any(not torch.equal(value, before[key]) for key, value in weights(out).items())


def test_the_newest_states_are_kept_and_torn_writes_are_not(tmp_path: Path) -> None:
    (tmp_path / ".state-00000009.pt.part").write_bytes(b"torn")
    for step in (1, 2, 3):
        save_state(tmp_path, step, {"step": step}, keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["state-00000002.pt", "state-00000003.pt"]
    assert load_state(tmp_path) == {"step": 3}
    states(tmp_path)[-1].write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="state-00000003"):
        load_state(tmp_path)
