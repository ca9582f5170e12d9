"""Under autocast a control model runs without casts and as exactly; a reference keeps its tokens in half precision."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_controlnet.core.precision import computed_in, own_types
from lib_controlnet.core.step import Step
from lib_controlnet.engine.session import ControlSession
from lib_controlnet.families.base import Runtime
from tests.families.driving import hooked
from tests.families.test_effects import step
from tests.families.test_reference import attentive_unet, reference

from .autocast import CudaAutocast, Kernels
from .passes import FAMILIES, RESIDUALS, Generation, Studio, base_weights, unit

HALVES = [torch.float16, torch.bfloat16]
CUDA = torch.device("cuda")


def session(studio: Studio, dtype: torch.dtype) -> ControlSession:
    generation = Generation(studio.config, Runtime(torch.device("cpu"), dtype, base_weights(studio.config)), ())
    made = ControlSession(studio._services({}), generation)
    made.prepare([unit(preprocessor="none")])
    made.begin(made._pass, 64, 64)
    return made


def call(studio: Studio, dtype: torch.dtype) -> Step:
    config, generator = studio.config, torch.Generator().manual_seed(1)
    x = torch.randn(1, 4, 8, 8, generator=generator).repeat(2, 1, 1, 1)
    context = torch.randn(2, 7, config.context_dim, generator=generator)
    y = None if config.adm_channels is None else torch.randn(2, config.adm_channels, generator=generator).to(dtype)
    return Step(x.to(dtype), torch.tensor([611.0, 611.0]), context.to(dtype), y, (True, False), (0, 0), 0.0)


def error(found: list[Tensor], exact: list[Tensor]) -> float:
    """Of all residuals together, relative to their size."""
    wrong = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(found, exact, strict=True))
    return (wrong / sum(float(b.double().square().sum()) for b in exact)) ** 0.5


def residuals(made: ControlSession, now: Step) -> list[Tensor]:
    control = made.begin_call(now)[1]
    assert control is not None
    return list(control.outputs())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["SD1", "SDXL"])
@pytest.mark.parametrize("family", RESIDUALS)
def test_no_casts_and_no_more_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, name: str, dtype: torch.dtype
) -> None:
    """Both are compared with float32 arithmetic on the same rounded weights and inputs."""
    studio = Studio(tmp_path, FAMILIES[family][1][name], family)
    half, now = session(studio, dtype), call(studio, dtype)
    exact = session(studio, torch.float32)
    rounded = {key: value.to(dtype).float() for key, value in exact.runs[0].model.net.state_dict().items()}  # type: ignore[attr-defined]
    exact.runs[0].model.net.load_state_dict(rounded)  # type: ignore[attr-defined]
    wanted = residuals(exact, call(studio, dtype))
    with Kernels() as plain:
        alone = residuals(half, now)
    half = session(studio, dtype)
    monkeypatch.setattr("lib_controlnet.engine.calls.own_types", lambda _: own_types([CUDA]))
    with CudaAutocast(dtype), Kernels() as within:
        switched_off = residuals(half, now)
    assert within.counts == plain.counts
    assert all(torch.equal(*pair) for pair in zip(switched_off, alone, strict=True))
    half = session(studio, dtype)
    monkeypatch.setattr("lib_controlnet.engine.calls.own_types", lambda _: own_types([]))
    with CudaAutocast(dtype), Kernels() as cast:
        widened = residuals(half, now)
    norms = plain.counts["native_group_norm"] + plain.counts["native_layer_norm"]
    assert cast.casts - within.casts >= 2 * norms
    assert error(alone, wanted) <= 1.25 * error(widened, wanted)
    assert error(alone, widened) <= 2.0 * error(widened, wanted)


@pytest.mark.parametrize("family", RESIDUALS)
def test_a_session_switches_its_devices_autocast_off(tmp_path: Path, family: str) -> None:
    studio = Studio(tmp_path, FAMILIES[family][1]["SD1"], family)
    made, now = session(studio, torch.float32), call(studio, torch.float32)
    expected = residuals(made, now)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = residuals(made, now)
        assert torch.is_autocast_enabled("cpu")
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", HALVES)
def test_a_references_tokens_are_kept_in_half(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """In float32, as norms give them under autocast, they would be twice as large and be cast at each look."""
    unet, now = attentive_unet().to(dtype), step()
    now = Step(now.x.to(dtype), now.timesteps, now.context.to(dtype), None, now.is_cond, now.images, now.progress)
    kept: list[torch.dtype] = []

    def run() -> Tensor:
        effect = reference("reference_only")
        bottom = unet.middle_block.register_forward_pre_hook(
            lambda *_: kept.extend(layer.bank.kept.dtype for layer in effect._layers if layer.bank is not None)
        )
        with CudaAutocast(dtype):
            found = hooked(unet, now, effect)
        bottom.remove()
        return found

    name = "lib_controlnet.families.reference.computed_in"
    monkeypatch.setattr(name, lambda _: computed_in(torch.empty(0, dtype=torch.float32)))
    wide = run()
    assert torch.float32 in kept
    kept.clear()
    monkeypatch.setattr(name, lambda _: dtype)
    assert torch.equal(run(), wide)
    assert set(kept) == {dtype}


def test_which_type_a_layer_computes_in() -> None:
    x = torch.zeros(2)
    assert computed_in(x.half()) is torch.float16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert computed_in(x) is torch.bfloat16
        assert computed_in(x.double()) is torch.float64
        with own_types([torch.device("cpu")]):
            assert computed_in(x) is torch.float32
        assert computed_in(x) is torch.bfloat16
    assert computed_in(x.to("meta")) is torch.float32


def test_older_pytorch_asks_in_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch before 2.4."""

    def refuses(*given: Any) -> bool:
        if given:
            raise TypeError("takes no arguments (1 given)")
        return False

    with torch.autocast("cpu", dtype=torch.bfloat16), monkeypatch.context() as older, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        older.setattr(torch, "is_autocast_enabled", refuses)
        assert computed_in(torch.zeros(2)) is torch.bfloat16
