"""T2I-Adapters against diffusers' class, alone and inside diffusers' U-Net."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import T2IAdapter
from safetensors.torch import save_file
from torch import Tensor

from lib_controlnet.core.errors import BaseModelError, ModelFileError
from lib_controlnet.core.hints import Hint
from lib_controlnet.core.modes import ControlMode
from lib_controlnet.core.schedule import layer_weights
from lib_controlnet.core.step import Step
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.engine.injection import UNetHooks
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.unet import UNetModel
from tests.engine.tiny import Adding
from tests.families.driving import settings
from tests.nets.ldm_oracle import diffusers_unet, example, for_diffusers, randomise, with_sizes
from tests.nets.sizes import SD1, SD2, SDXL

SHORT = replace(SDXL, num_res_blocks=1)
"""The demo model's structure: places follow from the U-Net's blocks."""
THREE = replace(SD1, channel_mult=SD1.channel_mult[:3], transformer_depth=SD1.transformer_depth[:3])
"""Three levels, and a map at the size of the latents: the demo model's."""
CPU = Runtime(torch.device("cpu"), torch.float32)
KINDS = {"full": "full_adapter", "three": "full_adapter", "light": "light_adapter", "sdxl": "full_adapter_xl"}
BASES = {"sdxl": SDXL, "three": THREE}
CASES = [("full", 3), ("full", 1), ("three", 1), ("light", 3), ("light", 1), ("sdxl", 3), ("sdxl", 1)]


def reference(kind: str, channels: int) -> T2IAdapter:
    """diffusers' adapter for the tiny U-Net of its kind, with random weights."""
    base = BASES.get(kind, SD1)
    widths = [base.model_channels * mult for mult in base.channel_mult]
    widths += widths[-1:] if kind == "sdxl" else []
    net = T2IAdapter(
        in_channels=channels,
        channels=widths[:3] if kind == "light" else widths,  # light ones repeat their last
        num_res_blocks=4 if kind == "light" else 2,
        downscale_factor=16 if kind == "sdxl" else 8,
        adapter_type=KINDS[kind],
    )
    randomise(net, seed=7)
    return net


def tencent(kind: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Diffusers' names as the files of TencentARC have them."""

    def name(key: str) -> str:
        key = key.removeprefix("adapter.")
        if kind == "light":
            return re.sub(r"resnets\.", "body.", key)
        key = re.sub(r"body\.(\d)\.resnets\.(\d)", lambda m: f"body.{2 * int(m[1]) + int(m[2])}", key)
        return re.sub(r"body\.(\d)\.in_conv", lambda m: f"body.{2 * int(m[1])}.in_conv", key)

    return {name(key): value for key, value in weights.items()}


def loaded(folder: Path, weights: dict[str, Tensor]) -> Any:
    path = folder / "adapter.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return load_model(path, CPU, discover())


def picture(width: int, height: int, channels: int = 3) -> Hint:
    """Random, and grey where the adapter reads one channel: there every way to make one channel of three agrees."""
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, channels), np.uint8)
    pixels = np.repeat(pixels, 3 // channels, axis=2)
    return Hint(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255.0, None, pixels)


def step_of(inputs: dict[str, Tensor], images: tuple[int, ...] = (0, 0)) -> Step:
    rows = len(inputs["x"])
    y = inputs.get("y")
    return Step(inputs["x"], inputs["timesteps"], inputs["context"], y, (True, False) * (rows // 2), images, 0.5)


def latent(width: int, height: int, rows: int = 2) -> dict[str, Tensor]:
    return {**example(SD1), "x": torch.zeros(rows, 4, height // 8, width // 8)}


def error(ours: Any, theirs: Any) -> float:
    assert [part.shape for part in ours] == [part.shape for part in theirs]
    assert min(float(part.std()) for part in theirs) > 0.02, "the oracle's output must not be flat"
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("names", ["diffusers", "tencent", "wrapped"])
@pytest.mark.parametrize(("kind", "channels"), CASES)
def test_features_equal_diffusers(tmp_path: Path, kind: str, channels: int, names: str) -> None:
    net = reference(kind, channels)
    weights = dict(net.state_dict())
    if names == "tencent":
        weights = tencent(kind, weights)
    if names == "wrapped":
        weights = {f"adapter.{key}": value for key, value in tencent(kind, weights).items()}
    hint = picture(128, 96, channels)
    base = settings(BASES.get(kind, SD1))
    control = loaded(tmp_path, weights).bind([hint], base).residuals(step_of(latent(128, 96)))
    with torch.no_grad():
        theirs = net(hint.image[:, :channels].expand(2, -1, -1, -1))
    assert error(control.outputs(), theirs) < 1e-5


@pytest.mark.parametrize(("width", "height"), [(200, 136), (72, 64), (136, 200)])
@pytest.mark.parametrize("kind", ["full", "light"])
def test_odd_sizes_are_halved_upwards(tmp_path: Path, kind: str, width: int, height: int) -> None:
    net = reference(kind, 3)
    hint = picture(width, height)
    control = (
        loaded(tmp_path, dict(net.state_dict())).bind([hint], settings()).residuals(step_of(latent(width, height)))
    )
    with torch.no_grad():
        theirs = net(hint.image.expand(2, -1, -1, -1))
    assert error(control.outputs(), theirs) < 1e-5


@pytest.mark.parametrize(
    ("kind", "config", "size"),
    [
        ("full", SD1, (16, 16)),
        ("light", SD1, (24, 16)),
        ("sdxl", SDXL, (16, 16)),
        ("sdxl", SHORT, (20, 12)),
        ("three", THREE, (24, 16)),
    ],
)
@torch.no_grad()
def test_a_unet_with_the_features_is_diffusers(
    tmp_path: Path, kind: str, config: UNetConfig, size: tuple[int, int]
) -> None:
    """Each feature at the place that diffusers gives it."""
    unet = UNetModel(config)
    randomise(unet, seed=2)
    inputs = with_sizes(example(config, size=size))
    model = loaded(tmp_path, dict(reference(kind, 3).state_dict()))
    model.check(BaseModel(config, "tiny"))
    control = model.bind([picture(size[1] * 8, size[0] * 8)], settings(config)).residuals(step_of(inputs))
    features = [part.clone() for part in control.outputs()]
    oracle = diffusers_unet(config, unet.state_dict())
    theirs = oracle(**for_diffusers(inputs), down_intrablock_additional_residuals=list(features)).sample
    hooks = UNetHooks(unet, Adding(control))
    ours = unet(**inputs)
    hooks.remove()
    assert float((theirs - oracle(**for_diffusers(inputs)).sample).abs().max()) > 0.01
    assert float((ours - theirs).abs().max()) < 1e-4


def test_odd_latents_of_sdxl_have_features_of_its_blocks_sizes(tmp_path: Path) -> None:
    """16 pixels a place do not divide them: the map is stretched to the next multiple."""
    model = loaded(tmp_path, dict(reference("sdxl", 3).state_dict()))
    control = model.bind([picture(136, 104)], settings(SDXL)).residuals(step_of(latent(136, 104)))
    assert [tuple(part.shape[2:]) for part in control.outputs()] == [(7, 9), (7, 9), (4, 5), (4, 5)]


def test_lines_are_read_by_their_light(tmp_path: Path) -> None:
    """Of a coloured picture PIL's conversion to L, which the adapters were trained with."""
    from PIL import Image

    net = reference("full", 1)
    hint = picture(64, 64)
    light = np.asarray(Image.fromarray(hint.display).convert("L"))
    control = loaded(tmp_path, dict(net.state_dict())).bind([hint], settings()).residuals(step_of(latent(64, 64)))
    with torch.no_grad():
        theirs = net(torch.from_numpy(light.copy())[None, None].float().div(255).expand(2, -1, -1, -1))
    assert error(control.outputs(), theirs) < 0.02  # PIL rounds to 1/255


def test_each_picture_of_a_batch_has_its_own(tmp_path: Path) -> None:
    model = loaded(tmp_path, dict(reference("full", 3).state_dict()))
    hints = [picture(64, 64), Hint(torch.rand(1, 3, 64, 64), None, picture(64, 64).display)]
    both = model.bind(hints, settings()).residuals(step_of(latent(64, 64, rows=4), (0, 1, 0, 1))).outputs()
    for row, hint in enumerate([*hints, *hints]):
        alone = model.bind([hint], settings()).residuals(step_of(latent(64, 64))).outputs()
        assert all(torch.allclose(part[row], one[0], atol=1e-5) for part, one in zip(both, alone, strict=True))


def test_the_network_runs_once_a_size(tmp_path: Path) -> None:
    model = loaded(tmp_path, dict(reference("light", 3).state_dict()))
    calls: list[int] = []
    model.net.register_forward_hook(lambda *_: calls.append(1))
    bound = model.bind([picture(64, 64)], settings())
    for progress in (64, 64, 128, 128):
        bound.residuals(step_of(latent(progress, 64)))
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("body.3.block2.bias"), "missing: body.3.block2.bias"),
        (lambda w: w.update(extra=torch.ones(1)), "not part of the network: extra"),
        (lambda w: w.update({"conv_in.weight": torch.ones(32, 100, 3, 3)}), "100 channels"),
    ],
)
def test_files_are_whole_or_refused(tmp_path: Path, change: Any, words: str) -> None:
    weights = tencent("full", dict(reference("full", 3).state_dict()))
    change(weights)
    with pytest.raises(ModelFileError, match=words.replace(".", r"\.")):
        loaded(tmp_path, weights)


@pytest.mark.parametrize(
    ("kind", "config", "fits"),
    [("full", SD1, True), ("light", SD1, True), ("sdxl", SDXL, True), ("three", THREE, True),
     ("three", SD1, False), ("full", THREE, False), ("full", SDXL, False), ("sdxl", SD1, False), ("full", SD2, False)],
)  # fmt: skip
def test_which_checkpoints_fit_is_known_before_loading(
    tmp_path: Path, kind: str, config: UNetConfig, fits: bool
) -> None:
    model = loaded(tmp_path, dict(reference(kind, 3).state_dict()))
    facts = FactReader(discover()).read(tmp_path / "adapter.safetensors")
    base = BaseModel(config, "tiny")
    assert facts.family == "t2i_adapter"
    assert (facts.mismatch(base) == "") is fits
    if fits:
        model.check(base)
    else:
        with pytest.raises(BaseModelError, match="cannot control"):
            model.check(base)


def test_layer_weights_are_the_peers(tmp_path: Path) -> None:
    """sd-webui-controlnet's four weights of "My prompt is more important"."""
    model = loaded(tmp_path, dict(reference("full", 3).state_dict()))
    weights = layer_weights(model.outputs, 2.0, ControlMode.prompt, ramp=model.ramp)
    assert weights == (0.5, 1.24, 1.65, 2.0)
    assert layer_weights(model.outputs, 2.0, ControlMode.balanced, ramp=model.ramp) == (2.0,) * 4
