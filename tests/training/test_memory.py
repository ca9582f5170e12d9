"""What a training takes of memory: counted beforehand as measured, and made less."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import profile

from lib_controlnet.training import planning
from lib_controlnet.training.adafactor import Adafactor, rounded
from lib_controlnet.training.base import load_base, new_control
from lib_controlnet.training.chance import generator_of
from lib_controlnet.training.config import BaseOptions, TrainConfig
from lib_controlnet.training.counting import PeakCounter
from lib_controlnet.training.dataset import Batch
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.options import TrainOptions
from lib_controlnet.training.planning import plan
from lib_controlnet.training.room import count_vae
from lib_controlnet.training.trainer import ControlTrainer

from .test_trainer import OPTIONS, snapshot, trainer
from .tiny import config

SIDE = 128


def measured_peak(work: Callable[[], Any]) -> int:
    """What PyTorch's profiler saw allocated at once, an implementation of its own."""
    gc.collect()  # what earlier tests left would go meanwhile
    with profile(profile_memory=True) as found:
        work()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


class Data:
    groups = ((0, 1),)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Batch:
        n = len(indices)
        return Batch(torch.randn(n, 4, SIDE // 8, SIDE // 8), torch.randn(n, 77, 64), torch.randn(1, 77, 64),
                     torch.rand(n, 3, SIDE, SIDE))  # fmt: skip


def settings(checkpoint: Path, kind: str = "controlnet", **train: Any) -> TrainConfig:
    options = {"average_decay": 0.0, **train}
    control = {"kind": kind, "rank": 4}
    return config(checkpoint, Path("none"), Path("none"), data={"resolution": SIDE}, train=options, control=control)


@pytest.mark.parametrize(
    "train",
    [{}, {"checkpointing": True}, {"precision": "bf16", "average_decay": 0.9},
     {"optimizer": "adafactor", "fused_backward": True, "clip_norm": 0.0},
     {"kind": "control_lora", "precision": "bf16", "base_weights": "fp8"}, {"kind": "lllite", "checkpointing": True}],
    ids=["plain", "checkpointing", "bf16 and average", "fused Adafactor", "Control-LoRA in fp8", "LLLite"],
)  # fmt: skip
def test_a_step_takes_what_was_counted(train: dict[str, Any], checkpoint: Path) -> None:
    wanted = settings(checkpoint, **train)
    base = load_base(BaseOptions(checkpoint=checkpoint))
    control = new_control(base, wanted)
    run = ControlTrainer(base.unet, control, Data(), base.noise, wanted.train)
    storages = [p.untyped_storage() for net in (base.unet, run.control) for p in net.parameters()]
    weights = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if run.average is not None:
        weights += sum(value.nbytes for value in run.average.values)
    found = measured_peak(lambda: [run.train_step() for _ in range(2)]) + weights
    assert planning._Sizes(wanted, shared=False)._step(wanted.train)[1] == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_the_auto_encoder_takes_what_was_counted(way: str, checkpoint: Path) -> None:
    autoencoder = load_base(BaseOptions(checkpoint=checkpoint)).autoencoder
    x = torch.zeros(1, 3, SIDE, SIDE) if way == "encode" else torch.zeros(1, 4, SIDE // 8, SIDE // 8)
    counter = PeakCounter()
    with counter:
        getattr(autoencoder, way)(x)
    # the random bits of a posterior that nobody samples are the difference
    assert count_vae(autoencoder, way, (SIDE, SIDE), None) == pytest.approx(counter.peak, rel=0.05)


def test_the_plan_names_a_change_that_fits(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[Any, dict[str, int]] = {}
    count = planning._Sizes.peaks

    def once(self: Any, options: TrainOptions, available: int) -> dict[str, int]:
        """As counted; equal settings are not counted again."""
        asked = repr(options)
        known[asked] = known.get(asked) or count(self, options, available)
        return known[asked]

    monkeypatch.setattr(planning._Sizes, "peaks", once)
    roomy = plan(settings(checkpoint), memory=8 << 30)
    assert roomy.fits
    assert set(roomy.as_json()) >= {"encode_peak_memory", "step_peak_memory", "look_peak_memory", "fits"}
    needed = roomy.step + (600 << 20)
    tight = plan(settings(checkpoint), memory=needed - (1 << 20))
    assert not tight.fits
    assert tight.change
    assert max(tight.changed.values()) <= tight.available
    assert known[repr(settings(checkpoint, **tight.change).train)] == dict(tight.changed)


def test_a_card_may_be_too_small_for_every_change(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def peaks(_self: Any, options: Any, _available: int) -> dict[str, int]:
        asked.append(options)
        return dict.fromkeys(("encode", "step", "look"), 1 << 40)

    monkeypatch.setattr(planning._Sizes, "peaks", peaks)
    hopeless = plan(settings(checkpoint), memory=8 << 30)
    assert (hopeless.fits, dict(hopeless.change)) == (False, {})
    assert len(asked) > 3


def test_adafactor_is_transformers_adafactor() -> None:
    theirs_of = pytest.importorskip("transformers.optimization").Adafactor
    torch.manual_seed(0)
    mine = [nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(7))]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in mine]
    ours = Adafactor(mine, lr=1e-2, weight_decay=0.1)
    other = theirs_of(theirs, lr=1e-2, weight_decay=0.1, relative_step=False, scale_parameter=False)
    for _ in range(5):
        for one, two in zip(mine, theirs, strict=True):
            one.grad = torch.randn_like(one)
            two.grad = one.grad.clone()
        ours.step()
        other.step()
    for one, two in zip(mine, theirs, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_moving_in_the_backward_pass_is_the_same_training() -> None:
    """To the bit; and no gradient is left."""
    options = replace(OPTIONS, optimizer="adafactor", clip_norm=0.0, steps=3)
    runs = [trainer(replace(options, fused_backward=fused)) for fused in (False, True)]
    for run in runs:
        run.run()
    one, other = (snapshot(run.control) for run in runs)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert all(weight.grad is None for weight in runs[1].trained)


def test_rounding_by_chance_keeps_the_mean() -> None:
    value = torch.full((20_000,), 1 + 2**-10)  # between 1 and 1 + 2**-7
    found = rounded(value, generator_of(0, 1)).float()
    assert set(found.tolist()) == {1.0, 1 + 2**-7}
    assert found.mean().item() == pytest.approx(1 + 2**-10, abs=2e-4)
    odd = torch.tensor([0.0, -1.5, float("inf"), -3e38])
    assert torch.equal(rounded(odd, generator_of(0, 2)).float()[:3], odd[:3])


def test_small_steps_move_bf16_weights(tmp_path: Path) -> None:
    """A step of a thousandth of a weight's last place: lost in bf16, found in the mean of many."""
    weight = nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    optimizer = Adafactor([weight], lr=1e-4)
    for _ in range(50):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight.float().mean().item() == pytest.approx(1 - 50e-4, abs=5e-4)


@pytest.mark.parametrize(
    "train",
    [{"fused_backward": True}, {"weights": "bf16"}, {"optimizer": "adafactor", "fused_backward": True},
     {"optimizer": "adafactor", "fused_backward": True, "clip_norm": 0.0, "accumulation": 2}],
)  # fmt: skip
def test_what_cannot_go_together_is_refused(train: dict[str, Any]) -> None:
    with pytest.raises(TrainingError):
        TrainOptions(steps=1, **train)


def test_adafactor_goes_on_from_a_state() -> None:
    options = replace(OPTIONS, optimizer="adafactor", clip_norm=0.0, weights="bf16", precision="bf16", steps=4)
    whole = trainer(options)
    whole.run()
    first = trainer(replace(options, steps=2))
    first.run()
    second = trainer(options)
    second.restore(first.state())
    second.run()
    one, other = snapshot(whole.control), snapshot(second.control)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert {value.dtype for value in one.values()} == {torch.bfloat16}
