"""A base in eight or four bits: its numbers worked out by hand, gradients as diffusers has them on these numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from lib_controlnet.loading.reader import read_weights
from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training.base import load_base
from lib_controlnet.training.config import BaseOptions
from lib_controlnet.training.controlled import ControlledUNet
from lib_controlnet.training.narrow import FORMATS, Narrow, narrow_base

from .test_kinds import SMALL, Reference, control_lora, hints_for, inputs_of, lllite, made, unet_of
from .tiny import Memory, config, session

WHOLE = ("time_embed.", "label_emb.", "input_blocks.0.", "out.")


def fp8_levels() -> np.ndarray:
    """All finite numbers of float8 with 4 bits of exponent and 3 of mantissa."""
    halves = [2.0**-6 * m / 8 for m in range(8)]
    halves += [2.0 ** (e - 7) * (1 + m / 8) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)]
    return np.array(sorted({sign * value for value in halves for sign in (-1, 1)}))


def nf4_levels() -> np.ndarray:
    """Quantiles of the normal distribution, as bitsandbytes' `create_normal_map` takes them."""
    positive, negative = (norm.ppf(np.linspace(0.9677083, 0.5, n)[:-1]) for n in (9, 8))
    levels = np.sort([*positive, 0.0, *-negative])
    return levels / levels.max()


def by_hand(weight: Tensor, form: str) -> Tensor:
    """`weight` at the nearest of its levels."""
    flat = weight.numpy().reshape(len(weight), -1)
    levels = fp8_levels() if form == "fp8" else nf4_levels()
    if form == "nf4":
        flat = flat.reshape(-1)
        flat = np.pad(flat, (0, -len(flat) % 64)).reshape(-1, 64)
    scale = np.abs(flat).max(1, keepdims=True) / np.float32(levels.max())
    above = np.searchsorted(levels, flat / scale).clip(1, len(levels) - 1)
    upper, lower = levels[above], levels[above - 1]
    nearest = np.where(flat / scale - lower > upper - flat / scale, upper, lower) * scale
    return torch.from_numpy(nearest.reshape(-1)[: weight.numel()].reshape(weight.shape)).float()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", [(8, 24), (6, 5, 3, 3), (7, 9, 1, 1)])
def test_weights_are_at_the_nearest_level(form: str, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.02
    weight[0, 0] = 0.3
    narrow, scale = FORMATS[form].narrow(weight)
    levels = torch.tensor(FORMATS[form].levels)
    found = FORMATS[form].widen(narrow, scale, levels, shape, torch.float32)
    assert torch.allclose(found, by_hand(weight, form), atol=1e-6, rtol=1e-5)
    assert narrow.nbytes == (weight.numel() if form == "fp8" else 32 * -(-weight.numel() // 64))
    half = FORMATS[form].widen(narrow, scale, levels, shape, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert (half.float() - found).abs().max() <= 2e-2 * found.abs().max()


def rounded(unet: UNetModel, form: str) -> UNetModel:
    """The same U-Net with its large weights at these levels."""
    other = UNetModel(unet.config)
    other.load_state_dict({
        key: by_hand(value, form) if value.ndim > 1 and not key.startswith(WHOLE) else value
        for key, value in unet.state_dict().items()
    })  # fmt: skip
    return other


@pytest.mark.parametrize(
    ("reference", "form", "options"),
    [(control_lora, "fp8", {}), (control_lora, "nf4", {}), (lllite, "fp8", {"layers": "all", "rank": 6})],
)
def test_gradients_are_those_of_diffusers_on_these_numbers(
    reference: Reference, form: str, options: dict[str, Any]
) -> None:
    plain, kind = unet_of(SMALL), reference.__name__
    other = rounded(plain, form)
    inputs = inputs_of(SMALL)
    oracle = made(other, kind, **options)
    hints, target = hints_for(oracle), torch.randn(2, 4, *inputs["x"].shape[2:], generator=torch.manual_seed(6))
    trained, answer = reference(other, oracle, inputs, hints)
    wanted = torch.autograd.grad((answer - target).square().mean(), list(trained.values()))
    control = made(plain, kind, **options)
    model = ControlledUNet(plain, control)
    narrow_base(plain, control, form)
    assert sum(isinstance(module, Narrow) for module in plain.modules()) > 30
    (model(inputs["x"], inputs["timesteps"], inputs["context"], hints) - target).square().mean().backward()
    ours = {name: weight.grad for name, weight in control.named_trained()}
    assert set(ours) == set(trained)
    for name, theirs in zip(trained, wanted, strict=True):
        own = ours[name]
        assert own is not None, name
        assert (own.reshape(theirs.shape) - theirs).abs().max() <= 5e-3 * theirs.abs().max() + 1e-8, name


def unet_of_file(checkpoint: Path) -> UNetModel:
    return load_base(BaseOptions(checkpoint=checkpoint)).unet


def test_a_training_on_a_narrow_base(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    """CtrLoRA's own base is written as it was trained on; looks draw with it; the training goes on to the bit."""

    def settings(out: str) -> Any:
        train = {"steps": 2, "batch_size": 1, "average_decay": 0.0, "base_weights": "fp8", "checkpointing": True}
        return config(checkpoint, pairs, tmp_path / out, train=train, samples={"every": 2, "steps": 1},
                      control={"kind": "ctrlora", "rank": 4})  # fmt: skip

    session(settings("stopped"), Memory(stop_after=1)).run()
    outcome = session(settings("stopped"), resume=True).run()
    whole = session(settings("whole")).run()
    assert (outcome.steps, outcome.locked_unchanged, whole.locked_unchanged) == (2, True, True)
    assert outcome.files["model"].read_bytes()[-4096:] == whole.files["model"].read_bytes()[-4096:]
    base, theirs = read_weights(whole.files["ctrlora_base"]).weights, unet_of_file(checkpoint).state_dict()
    key = next(key for key in theirs if "input_blocks" in key and key.endswith("proj.weight"))
    stored = next(value for name, value in base.items() if name.endswith(key))
    assert torch.allclose(stored.float(), by_hand(theirs[key], "fp8"), atol=1e-3)
    assert not torch.allclose(stored.float(), theirs[key], atol=1e-4)
