"""Whole trainings of kinds that are no ControlNet: from a folder to a file that a unit loads, stopped and gone on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lib_controlnet.core.errors import ControlNetError
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.training.base import load_base
from lib_controlnet.training.config import BaseOptions
from lib_controlnet.training.export import file_sha256

from .tiny import Memory, config, session

KINDS = {
    "control_lora": ("control_lora", "stable-diffusion-v1/control-lora"),
    "lllite": ("lllite", "stable-diffusion-v1/control-net-lllite"),
    "controlnet_xs": ("controlnet_xs", "stable-diffusion-v1/controlnet-xs"),
    "ctrlora": ("ctrlora", "stable-diffusion-v1/ctrlora"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_stopped_and_gone_on_makes_a_file_that_a_unit_loads(
    kind: str, checkpoint: Path, pairs: Path, tmp_path: Path
) -> None:
    def settings(out: str, **changes: Any) -> Any:
        options = {"steps": 3, "batch_size": 1, "learning_rate": 1e-2, "average_decay": 0.0} | changes
        control = {"kind": kind, "rank": 4, "ratio": 0.5}
        return config(checkpoint, pairs, tmp_path / out, control=control, train=options,
                      samples={"every": 3, "steps": 1}, output={"save_every": 3})  # fmt: skip

    first = session(settings("stopped"), Memory(stop_after=2)).run()
    assert (first.steps, first.stopped) == (2, True)
    watcher = Memory()
    outcome = session(settings("stopped"), watcher, resume=True).run()
    whole = session(settings("whole")).run()
    assert (watcher.first, outcome.steps, outcome.locked_unchanged) == (2, 3, True)
    made = load_file(str(outcome.files["model"]))
    assert all(torch.equal(value, made[key]) for key, value in load_file(str(whole.files["model"])).items())
    assert any(value.any() for key, value in made.items() if "zero" in key or ".up." in key or key.endswith(".up"))
    with safe_open(str(outcome.files["model"]), "pt") as stream:
        metadata = stream.metadata()
    assert (metadata["controlnet.kind"], metadata["modelspec.architecture"]) == KINDS[kind]
    base = load_base(BaseOptions(checkpoint=checkpoint))
    runtime = Runtime(torch.device("cpu"), torch.float32, base_weights=base.unet.state_dict)
    model = load_model(outcome.files["model"], runtime, discover())
    model.check(BaseModel(base.unet.config, "tiny"))
    assert file_sha256(checkpoint) == metadata["controlnet.base_sha256"]


def test_another_kind_or_rank_cannot_go_on(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    def settings(**control: Any) -> Any:
        return config(checkpoint, pairs, tmp_path / "out", control=control, train={"steps": 1, "batch_size": 1})

    session(settings(kind="lllite", rank=4)).run()
    for other in ({"kind": "controlnet"}, {"kind": "lllite", "rank": 8}):
        with pytest.raises(ControlNetError, match=r"control\.(kind|rank)"):
            session(settings(**other), resume=True).run()
