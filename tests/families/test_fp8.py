"""float8: files that come in it stay narrow where that is asked, and what is added to a narrow base is the true sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib_controlnet.core.step import Step
from lib_controlnet.engine.model_cache import ModelCache
from lib_controlnet.families.base import Runtime
from lib_controlnet.families.controlnet import BoundControlNet
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.hosts.a1111_memory import true_weights
from lib_controlnet.loading.canonical import DIFFERENCE_KEY
from lib_controlnet.nets.controlnet import ControlNet
from tests.engine.tiny import SD1_SHAPED, SDXL_SHAPED, inputs, randomise, tiny_controlnet, tiny_unet

CPU = torch.device("cpu")
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def narrow_file(folder: Path, fp8: torch.dtype, config: Any = SD1_SHAPED) -> dict[str, Tensor]:
    """A file as they come: matrices and kernels in float8, norms and biases in half precision."""
    weights = tiny_controlnet(config).state_dict()
    weights = {key: value.to(fp8 if value.dim() > 1 else torch.float16) for key, value in weights.items()}
    save_file(weights, folder / "narrow.safetensors")
    return weights


def control(model: Any, config: Any = SD1_SHAPED) -> tuple[Tensor, ...]:
    given: Any = inputs(config)
    step = Step(**given, is_cond=(True, False), images=(0, 0), progress=0.0)
    hint = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return BoundControlNet(model, hint, pooled=False).residuals(step).outputs()


@pytest.mark.parametrize("fp8", [E4M3, E5M2])
@pytest.mark.parametrize("config", [SD1_SHAPED, SDXL_SHAPED], ids=["sd1", "sdxl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_weights_compute_as_widened_ones_to_the_bit(
    tmp_path: Path, fp8: torch.dtype, config: Any, dtype: torch.dtype
) -> None:
    weights = narrow_file(tmp_path, fp8, config)
    kept: Any = load_model(tmp_path / "narrow.safetensors", Runtime(CPU, dtype, keeps_fp8=True), discover())
    wide: Any = load_model(tmp_path / "narrow.safetensors", Runtime(CPU, dtype), discover())
    assert {p.dtype for p in kept.net.parameters()} == {fp8, dtype}
    assert {p.dtype for p in wide.net.parameters()} == {dtype}
    assert kept.from_fp8
    assert wide.from_fp8
    elements = sum(value.numel() for value in weights.values() if value.dtype == fp8)
    assert wide.residence.size - kept.residence.size == elements * (dtype.itemsize - 1)
    ours, theirs = control(kept, config), control(wide, config)
    assert all(one.dtype == dtype and torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_cache_tells_narrow_and_widened_apart_and_only_for_narrow_files(tmp_path: Path) -> None:
    cache = ModelCache(discover(), lambda: 1 << 40)
    narrow_file(tmp_path, E4M3)
    narrow, wide = Runtime(CPU, torch.float32, keeps_fp8=True), Runtime(CPU, torch.float32)
    first = cache.get(tmp_path / "narrow.safetensors", narrow, "")
    assert cache.get(tmp_path / "narrow.safetensors", narrow, "") is first
    assert cache.get(tmp_path / "narrow.safetensors", wide, "") is not first
    save_file(tiny_controlnet().state_dict(), tmp_path / "full.safetensors")
    full = cache.get(tmp_path / "full.safetensors", narrow, "")
    assert cache.get(tmp_path / "full.safetensors", wide, "") is full
    assert not full.from_fp8


def difference_file(folder: Path, base: nn.Module) -> ControlNet:
    """The file of a ControlNet as differences to `base`, and the ControlNet."""
    net, own = tiny_controlnet(seed=5), base.state_dict()
    weights = {key: value - own[key] if key in own else value for key, value in net.state_dict().items()}
    save_file({**weights, DIFFERENCE_KEY: torch.zeros(1)}, folder / "difference.safetensors")
    return net


def in_fp8(unet: nn.Module, *, remembers: bool) -> None:
    """As A1111's options "FP8 weight" and "Cache FP16 weight" leave a U-Net."""
    for module in unet.modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        if remembers:
            kept: Any = module
            kept.fp16_weight = module.weight.data.clone().half()
            if module.bias is not None:
                kept.fp16_bias = module.bias.data.clone().half()
        module.to(E4M3)


@pytest.mark.parametrize(("remembers", "worst"), [(True, 1e-3), (False, 0.3)])
def test_differences_are_added_to_the_true_weights_of_a_narrow_base(
    tmp_path: Path, remembers: bool, worst: float
) -> None:
    unet = randomise(tiny_unet(), 1)
    net = difference_file(tmp_path, unet)
    in_fp8(unet, remembers=remembers)
    runtime = Runtime(CPU, torch.float32, base_weights=lambda: true_weights(unet))
    model: Any = load_model(tmp_path / "difference.safetensors", runtime, discover())
    found = model.net.state_dict()
    gap = max(float((found[key] - value).abs().max()) for key, value in net.state_dict().items())
    assert gap < worst
    assert gap > 0


def test_a_lora_of_the_job_before_is_no_part_of_the_base(tmp_path: Path) -> None:
    unet = randomise(tiny_unet(), 1)
    net = difference_file(tmp_path, unet)
    for module in unet.modules():
        if isinstance(module, nn.Linear):
            kept: Any = module
            kept.network_weights_backup = module.weight.data.clone()
            module.weight.data += 1.0
    runtime = Runtime(CPU, torch.float32, base_weights=lambda: true_weights(unet))
    model: Any = load_model(tmp_path / "difference.safetensors", runtime, discover())
    found = model.net.state_dict()
    assert all(torch.allclose(found[key], value, atol=1e-5) for key, value in net.state_dict().items())
