"""Whole trainings in tiny: what comes out, and that nothing trained is lost when they fail."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from lib_controlnet.families.base import Runtime
from lib_controlnet.families.controlnet import FAMILY
from lib_controlnet.loading.canonical import canonical
from lib_controlnet.loading.reader import read_weights
from lib_controlnet.training import records, trainer
from lib_controlnet.training.base import load_base
from lib_controlnet.training.errors import NotFinite, TrainingError
from lib_controlnet.training.pictures import read_picture
from lib_controlnet.training.state import load_state
from tests.nets.ldm_oracle import diffusers_controlnet, example, for_diffusers

from .tiny import SIDE, Memory, config, session


def test_a_training_from_folder_to_files(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    watcher = Memory()
    out = tmp_path / "out"
    settings = config(checkpoint, pairs, out, samples={"every": 4}, output={"control_type": "canny"})
    outcome = session(settings, watcher).run()
    assert (outcome.steps, outcome.stopped, outcome.locked_unchanged) == (8, False, True)
    assert outcome.loss == pytest.approx(sum(watcher.losses) / 8)
    assert [look.step for look in watcher.looks] == [0, 4, 8]
    assert watcher.reports[0].pairs == 4
    # without control the map brings nothing, and that is the floor
    assert watcher.looks[0].adherence == watcher.looks[0].mismatched == outcome.adherence_without
    assert outcome.adherence_mismatched == watcher.looks[-1].mismatched
    for look in watcher.looks:
        assert read_picture(look.grid, "grid").shape == (2 * SIDE, 3 * SIDE, 3)
    grid = read_picture(watcher.looks[0].grid, "grid")
    hint = read_picture(pairs / "source" / "0.png", "hint")
    assert np.array_equal(grid[:SIDE, :SIDE], hint)
    events = [line["event"] for line in records.read_log(out)]
    assert [events.count(event) for event in ("begin", "ceiling", "step", "look", "saved", "end")] == [1, 1, 8, 3, 3, 1]
    assert [path.name for path in sorted(out.glob("state-*"))] == ["state-00000004.pt", "state-00000008.pt"]
    # what is left tells of the last look, which follows the state of its step
    stored = load_state(out)
    assert stored is not None
    assert [look[0] for look in stored["curve"]] == [0, 4, 8]
    assert outcome.files["samples"] == watcher.looks[-1].grid
    assert "at step 8:" in (out / "README.md").read_text("utf-8")


def test_the_first_look_is_the_base_without_control(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    """Zero convolutions add nothing, so the adherence at step 0 is the level without control."""
    watcher = Memory()
    settings = config(checkpoint, pairs, tmp_path / "out", samples={"every": 8}, train={"learning_rate": 0.0})
    session(settings, watcher).run()
    grids = [read_picture(look.grid, "grid") for look in watcher.looks]
    assert np.array_equal(grids[0], grids[1])


def test_both_formats_are_the_same_network_and_our_loader_reads_them(
    checkpoint: Path, pairs: Path, tmp_path: Path
) -> None:
    settings = config(
        checkpoint, pairs, tmp_path / "out",
        train={"average_decay": 0.0}, output={"formats": ["v1.1", "diffusers"], "control_type": "canny"},
    )  # fmt: skip
    outcome = session(settings).run()
    one = load_file(str(outcome.files["model"]))
    assert {value.dtype for value in one.values()} == {torch.float16}
    folder = outcome.files["diffusers"]
    two = canonical(read_weights(folder / "diffusion_pytorch_model.safetensors").weights)
    assert set(one) == set(two)
    for key, value in one.items():
        assert torch.equal(value.flatten(), two[key].flatten()), key
    theirs = ControlNetModel.from_pretrained(str(folder)).float().eval()
    ours = FAMILY.load(outcome.files["model"], one, {}, Runtime(torch.device("cpu"), torch.float32))
    oracle = diffusers_controlnet(ours.config, {key: value.float() for key, value in one.items()})
    inputs = for_diffusers(example(ours.config.unet))
    hint = torch.rand(2, 3, 128, 128)
    down, middle = theirs(**inputs, controlnet_cond=hint, return_dict=False)
    wanted_down, wanted_middle = oracle(**inputs, controlnet_cond=hint, return_dict=False)
    assert middle.any()
    assert torch.allclose(middle, wanted_middle, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(down, wanted_down, strict=True))


def test_without_a_preprocessor_lines_are_compared_with_the_true_pictures(
    checkpoint: Path, pairs: Path, tmp_path: Path
) -> None:
    """The paper's own layout: a colour picture against a map would have a ceiling of next to nothing."""
    settings = config(checkpoint, pairs, tmp_path / "out", data={"preprocessor": "none"}, samples={"every": 8})
    run = session(settings)
    run.intake.begin(None)
    base = load_base(settings.base)
    shown = run.intake.encode(base, run._room(base), 0)[1]
    observer = run._observer(base, shown)
    assert observer is not None
    assert observer._score({index: shown.picture(index) for index in range(2)}) == 1.0


def test_the_file_says_what_made_it(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    outcome = session(config(checkpoint, pairs, tmp_path / "out", output={"control_type": "canny"})).run()
    with safe_open(str(outcome.files["model"]), "pt") as stream:
        metadata = stream.metadata()
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/controlnet"
    assert (metadata["controlnet.type"], metadata["controlnet.preprocessor"]) == ("canny", "canny")
    assert metadata["controlnet.base"] == checkpoint.name
    assert json.loads(metadata["controlnet.recipe"])["steps"] == 8


def test_going_on_from_an_existing_controlnet(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    """At rate 0 the file comes back as it was; in diffusers' format too."""
    made = session(config(checkpoint, pairs, tmp_path / "a", output={"formats": ["v1.1", "diffusers"]})).run().files
    starts = [made["model"], made["diffusers"] / "diffusion_pytorch_model.safetensors"]
    for index, start in enumerate(starts):
        frozen = {"learning_rate": 0.0, "average_decay": 0.0, "steps": 1}
        settings = config(checkpoint, pairs, tmp_path / f"b{index}", base={"start": start}, train=frozen)
        before, after = load_file(str(made["model"])), load_file(str(session(settings).run().files["model"]))
        assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_an_unlocked_decoder_is_trained_and_saved(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    settings = config(checkpoint, pairs, tmp_path / "out", train={"sd_locked": False, "decoder_learning_rate": 1e-3})
    outcome = session(settings).run()
    assert outcome.locked_unchanged
    before, after = load_file(str(checkpoint)), load_file(str(outcome.files["base"]))
    assert before.keys() == after.keys()
    moved = {key for key, value in before.items() if not torch.equal(value.half().float(), after[key].float())}
    prefix = "model.diffusion_model."
    assert moved
    assert all(key.startswith((f"{prefix}output_blocks.", f"{prefix}out.")) for key in moved)


@pytest.mark.parametrize(
    "train",
    [
        {"only_mid_control": True},
        {"checkpointing": True, "accumulation": 2},
        {"precision": "bf16"},
        {"min_snr_gamma": 5.0, "schedule": "cosine", "warm_up": 2},
    ],
    ids=["only_mid_control", "checkpointing", "bf16", "min_snr"],
)
def test_options_train_something(train: dict[str, Any], checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    settings = config(checkpoint, pairs, tmp_path / "out", train=train, samples={"every": 8})
    outcome = session(settings).run()
    weights = load_file(str(outcome.files["model"]))
    assert outcome.locked_unchanged
    assert weights["middle_block_out.0.weight"].any()
    assert bool(weights["zero_convs.0.0.weight"].any()) is not train.get("only_mid_control", False)


def test_checkpointing_changes_no_number(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    runs = [Memory(), Memory()]
    for index, watcher in enumerate(runs):
        settings = config(checkpoint, pairs, tmp_path / str(index), train={"checkpointing": bool(index)})
        session(settings, watcher).run()
    assert runs[0].losses == runs[1].losses


def test_no_number_for_a_loss_goes_back_to_the_last_state(
    checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = trainer.ControlTrainer.loss

    def breaks(self: Any, batch: Any, chance: Any) -> torch.Tensor:
        return right(self, batch, chance) * (float("nan") if self.step == 5 else 1.0)

    monkeypatch.setattr(trainer.ControlTrainer, "loss", breaks)
    settings = config(checkpoint, pairs, tmp_path / "out")
    with pytest.raises(NotFinite, match="loss of step 6 is nan") as caught:
        session(settings).run()
    assert "learning_rate" in str(caught.value)
    monkeypatch.setattr(trainer.ControlTrainer, "loss", right)
    stored = load_state(tmp_path / "out")
    assert stored is not None
    assert stored["step"] == 4
    assert all(torch.isfinite(value).all() for value in stored["trained"])
    calmer = dataclasses.replace(settings, train=dataclasses.replace(settings.train, learning_rate=1e-4))
    assert session(calmer, resume=True).run().steps == 8


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX's")
def test_a_full_disk_loses_no_earlier_state(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    """The system itself refuses: no file may grow beyond the limit, as if the disk were full."""
    import resource  # POSIX has it

    out = tmp_path / "out"
    session(config(checkpoint, pairs, out), Memory(stop_after=2)).run()
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.suffix != ".jsonl"}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(TrainingError, match="cannot be written; nothing that was there before is lost"):
            session(config(checkpoint, pairs, out), resume=True).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {name: (out / name).read_bytes() for name in before} == before
    assert not list(out.glob(".*.part"))
    assert session(config(checkpoint, pairs, out), resume=True).run().steps == 8


def test_a_disk_without_room_is_told_before_the_training(
    checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(TrainingError, match="no room for the states"):
        session(config(checkpoint, pairs, tmp_path / "out")).run()


def test_a_picture_cut_off_in_the_middle_is_told(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(noise).save(pairs / "target" / "3.png")
    whole = (pairs / "target" / "3.png").read_bytes()
    (pairs / "target" / "3.png").write_bytes(whole[:4000])
    with pytest.raises(TrainingError, match=r"target/3\.png.*cannot be read"):
        session(config(checkpoint, pairs, tmp_path / "out")).run()


def test_what_is_missing_on_this_machine_is_told(
    checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(TrainingError, match="needs the package bitsandbytes"):
        session(config(checkpoint, pairs, tmp_path / "a", train={"optimizer": "adamw8bit"})).run()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match="need the package tensorboard"):
        session(config(checkpoint, pairs, tmp_path / "b", output={"tensorboard": True})).run()
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(TrainingError, match=r"needs the package diffusers.*-m pip install diffusers"):
        session(config(checkpoint, pairs, tmp_path / "c")).run()


def test_half_precision_is_for_gpus(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fp16 cannot be trained on a processor"):
        session(config(checkpoint, pairs, tmp_path / "c", train={"precision": "fp16"})).run()


def test_a_file_that_is_no_checkpoint(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    model = session(config(checkpoint, pairs, tmp_path / "a")).run().files["model"]
    with pytest.raises(Exception, match="no whole Stable Diffusion checkpoint"):
        session(config(model, pairs, tmp_path / "b")).run()
