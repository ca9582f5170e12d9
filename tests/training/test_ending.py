"""How trainings end: whatever happens, what was trained is on the disk, and what is no number is not."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lib_controlnet.training import encoder, looks, room, trainer
from lib_controlnet.training.errors import NotFinite, TrainingError
from lib_controlnet.training.records import STOP, read_log
from lib_controlnet.training.state import load_state, states

from .tiny import SIDE, Memory, config, make_pairs, session


def step_of(out: Path) -> int:
    stored = load_state(out)
    return 0 if stored is None else stored["step"]


def cut(path: Path) -> None:
    """A header and no more."""
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:4000])


class Breaking(Memory):
    """Does something after so many steps."""

    def __init__(self, after: int, what: Any) -> None:
        super().__init__()
        self._after, self._what = after, what

    def step(self, progress: Any) -> None:
        super().step(progress)
        if len(self.losses) == self._after:
            self._what()


def test_a_map_that_breaks_while_training(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    def break_maps() -> None:
        for path in (pairs / "source").iterdir():
            cut(path)

    out = tmp_path / "out"
    with pytest.raises(TrainingError, match="cannot be read"):
        session(config(checkpoint, pairs, out, output={"save_every": 100}), Breaking(3, break_maps)).run()
    assert step_of(out) in (3, 4)  # the next batch was made ahead


def test_no_memory_for_a_look(checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First fewer at once; then the training ends with its state, and says what to do."""
    drawn: list[int] = []
    right = looks.sample

    def sample(unet: Any, condition: Any, *others: Any, **options: Any) -> Any:
        drawn.append(len(condition.context))
        if len(drawn) > 1 and len(condition.context) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        if len(drawn) > 6:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return right(unet, condition, *others, **options)

    monkeypatch.setattr(looks, "sample", sample)
    out = tmp_path / "out"
    settings = config(checkpoint, pairs, out, samples={"every": 3}, output={"save_every": 100})
    with pytest.raises(TrainingError, match=r"memory is used up.*--resume"):
        session(settings).run()
    assert drawn == [2, 2, 1, 1, 1, 1, 1]  # without control, then with its own map, then with another's
    assert step_of(out) == 3


def test_samples_do_not_depend_on_how_many_are_drawn_at_once(
    checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids = []
    for count in (1, 2):
        monkeypatch.setattr(looks.Room, "samples_at_once", lambda *_, count=count: count)
        watcher = Memory()
        session(config(checkpoint, pairs, tmp_path / str(count), samples={"every": 8}), watcher).run()
        grids.append([np.array(Image.open(look.grid)) for look in watcher.looks])
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(*grids, strict=True))


@pytest.mark.parametrize("kind", ["loss", "norm", "weights"])
def test_divergence_leaves_the_last_state_and_the_file(
    kind: str, checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a calmer training goes on from there."""
    out = tmp_path / "out"
    right = trainer.ControlTrainer.loss

    def breaks(self: Any, batch: Any, chance: Any) -> torch.Tensor:
        loss = right(self, batch, chance)
        if self.step != 5:
            return loss
        if kind == "weights":
            with torch.no_grad():
                self.trained[-1].fill_(1e30)
            return loss
        return loss * (float("nan") if kind == "loss" else 1.0) if kind == "loss" else _Infinite.apply(loss)

    monkeypatch.setattr(trainer.ControlTrainer, "loss", breaks)
    settings = config(checkpoint, pairs, out, train={"average_decay": 0.0})
    with pytest.raises(NotFinite, match="diverged"):
        session(settings).run()
    monkeypatch.setattr(trainer.ControlTrainer, "loss", right)
    assert [path.name for path in states(out)] == ["state-00000004.pt"]
    for weights in (load_file(str(out / "made.safetensors")).values(), load_state(out)["trained"]):  # type: ignore[index]
        assert all(torch.isfinite(value.float()).all() for value in weights)
    assert any(line["event"] == "diverged" for line in read_log(out))
    calmer = dataclasses.replace(settings, train=dataclasses.replace(settings.train, learning_rate=1e-4))
    assert session(calmer, resume=True).run().steps == 8


class _Infinite(torch.autograd.Function):
    """A loss that is a number and whose gradient is none."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * float("inf")


class Asked(Memory):
    """Is stopped at the first word of a stage."""

    def __init__(self, stage: str, out: Path | None = None) -> None:
        super().__init__()
        self._stage, self._out, self._seen = stage, out, False

    def stage(self, what: str, done: int, total: int) -> None:
        super().stage(what, done, total)
        if what == self._stage and not self._seen:
            self._seen = True
            if self._out is not None:
                (self._out / STOP).touch()

    def stopping(self) -> bool:
        return self._seen and self._out is None


@pytest.mark.parametrize(
    ("stage", "by_file"), [("check", False), ("pictures", True), ("captions", False), ("samples", True)]
)
def test_a_stop_is_heard_everywhere(
    stage: str, by_file: bool, checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was encoded until then is not encoded again."""
    monkeypatch.setattr(encoder.Room, "pictures_at_once", lambda *_: 1)
    monkeypatch.setattr(encoder, "_TEXTS_AT_ONCE", 1)
    monkeypatch.setattr(looks.Room, "samples_at_once", lambda *_: 1)
    out = tmp_path / "out"
    settings = config(checkpoint, pairs, out, samples={"every": 4})
    watcher = Asked(stage, out if by_file else None)
    outcome = session(settings, watcher).run()
    assert (outcome.stopped, outcome.steps) == (True, 0)
    assert not (out / STOP).exists()
    again = Memory()
    assert session(settings, again, resume=True).run().steps == 8
    assert [look.step for look in again.looks] == [0, 4, 8]
    encoded = [total for what, _, total in again.stages if what == "pictures"]
    assert encoded[:1] == {"check": [4], "pictures": [3], "captions": [2], "samples": []}[stage]


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [(0.01, [1, 8, 8, 3]), (0.5, [1, 4, 4, 4, 4, 3]), (9.0, [1] * 20)],
    ids=["card", "core", "slow"],
)
def test_encoding_can_be_stopped_every_few_seconds(seconds: float, sizes: list[int]) -> None:
    """Eight pictures at once are no 72 seconds' work on a slow machine."""
    now, found = [0.0], list[int]()
    for portion in room.in_portions(range(20), 8, lambda: now[0]):
        found.append(len(portion))
        now[0] += seconds * len(portion)
    assert found == sizes


def test_a_stop_between_two_passes_takes_no_step(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = config(checkpoint, pairs, out, train={"accumulation": 3, "average_decay": 0.0})

    class Later(Memory):
        asked = 0

        def stopping(self) -> bool:
            self.asked += bool(self.losses)
            return self.asked > 2  # once before the step, then after its first pass

    assert session(settings, Later()).run().steps == 1
    session(settings, resume=True).run()
    session(config(checkpoint, pairs, tmp_path / "whole", train={"accumulation": 3, "average_decay": 0.0})).run()
    one, other = load_state(out), load_state(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(one["trained"], other["trained"], strict=True))  # type: ignore[index]


def test_six_steps_encode_what_six_steps_see(checkpoint: Path, tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "many", 40)
    watcher = Memory()
    settings = config(checkpoint, pairs, tmp_path / "out", train={"steps": 3, "batch_size": 2})
    session(settings, watcher).run()
    assert next(total for what, _, total in watcher.stages if what == "pictures") == 6
    longer = config(checkpoint, pairs, tmp_path / "out", train={"steps": 5, "batch_size": 2})
    again = Memory()
    session(longer, again, resume=True).run()
    assert next(total for what, _, total in again.stages if what == "pictures") == 4


def test_two_trainings_in_one_folder(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        filelock.FileLock(str(tmp_path / "out" / ".training.lock")),
        pytest.raises(TrainingError, match="another training is writing"),
    ):
        session(config(checkpoint, pairs, tmp_path / "out")).run()


def test_processes_that_do_not_know_each_other(
    checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = session(config(checkpoint, pairs, tmp_path / "out"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="do not know each other"):
        run.run()
    assert not (tmp_path / "out" / "log.jsonl").exists()


def other_vae(checkpoint: Path, path: Path) -> Path:
    from safetensors.torch import save_file

    weights = {key: value + 0.01 if "first_stage_model.encoder" in key else value
               for key, value in load_file(str(checkpoint)).items()}  # fmt: skip
    save_file(weights, str(path))
    return path


def test_another_vae_encodes_anew(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    session(config(checkpoint, pairs, out)).run()
    watcher = Memory()
    vae = other_vae(checkpoint, tmp_path / "other.safetensors")
    session(config(checkpoint, pairs, out, base={"vae": vae}), watcher).run()
    assert [what for what, _, _ in watcher.stages].count("pictures") > 0
    same = Memory()
    moved = Path(shutil.copy(vae, tmp_path / "moved.safetensors"))
    session(config(checkpoint, pairs, out, base={"vae": moved}), same).run()
    assert "pictures" not in [what for what, _, _ in same.stages]


def test_a_moved_data_set_goes_on(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    session(config(checkpoint, pairs, out), Memory(stop_after=3)).run()
    moved = shutil.copytree(pairs, tmp_path / "moved")
    shutil.rmtree(pairs)
    watcher = Memory()
    assert session(config(checkpoint, moved, out), watcher, resume=True).run().steps == 8
    assert "pictures" not in [what for what, _, _ in watcher.stages]


@pytest.mark.parametrize(
    ("train", "harmless"),
    [({"checkpointing": True}, True), ({"batch_size": 1}, False), ({"only_mid_control": True}, False)],
    ids=["checkpointing", "batch", "middle only"],
)
def test_changes_of_a_resumed_training(
    train: dict[str, Any], harmless: bool, checkpoint: Path, pairs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    session(config(checkpoint, pairs, out), Memory(stop_after=3)).run()
    other = config(checkpoint, pairs, out, train=train)
    watcher = Memory()
    if not harmless:
        with pytest.raises(TrainingError, match=rf"{next(iter(train))}.*--accept-changes"):
            session(other, resume=True).run()
    assert session(other, watcher, resume=True, accept_changes=not harmless).run().steps == 8
    assert any(next(iter(train)) in sentence for sentence in watcher.said)


def test_a_cut_data_set_is_told(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    session(config(checkpoint, pairs, out), Memory(stop_after=3)).run()
    text = (pairs / "prompt.json").read_text("utf-8").splitlines()
    (pairs / "prompt.json").write_text("\n".join(text[:4]), "utf-8")
    with pytest.raises(TrainingError, match="4 pairs then, 2 now"):
        session(config(checkpoint, pairs, out), resume=True).run()
    (pairs / "prompt.json").write_text("\n".join(text).replace("disc 1", "disk 1"), "utf-8")
    with pytest.raises(TrainingError, match="other pictures, maps or captions"):
        session(config(checkpoint, pairs, out), resume=True).run()
    assert session(config(checkpoint, pairs, out), resume=True, accept_changes=True).run().steps == 8


def test_another_checkpoint_cannot_go_on(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    session(config(checkpoint, pairs, out), Memory(stop_after=3)).run()
    other = other_vae(checkpoint, tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match=r"cannot go on.*another checkpoint"):
        session(config(other, pairs, out), resume=True, accept_changes=True).run()


def test_threads_are_not_left_behind(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    session(config(checkpoint, pairs, tmp_path / "out")).run()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("controlnet-check")]
