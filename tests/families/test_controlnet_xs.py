"""ControlNet-XS in whole U-Nets against diffusers' model of both, and how its files are known and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_controlnet.core.errors import BaseModelError, ModelFileError
from lib_controlnet.core.hints import Hint
from lib_controlnet.core.modes import ControlMode
from lib_controlnet.core.step import Step
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.nets.config import UNetConfig
from tests.families.driving import hooked, settings
from tests.families.test_lllite import call, error, plain, unet_of
from tests.families.test_t2i_adapter import picture
from tests.nets.ldm_oracle import for_diffusers, with_sizes
from tests.nets.sizes import SD1, SD2, SDXL
from tests.nets.xs_reference import adapter, controlled, vislearn

CPU = Runtime(torch.device("cpu"), torch.float32)
SMALL_XL = replace(SDXL, transformer_depth=(0, 1, 2), middle_depth=2)


def loaded(folder: Path, weights: dict[str, Tensor]) -> Any:
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "net.safetensors")
    return load_model(folder / "net.safetensors", CPU, discover())


def sized(now: Step) -> tuple[Step, dict[str, Any]]:
    """The step with the sizes in `y` that diffusers is told, and diffusers' arguments."""
    given: dict[str, Any] = {"x": now.x, "timesteps": now.timesteps, "context": now.context}
    given = with_sizes(given if now.y is None else {**given, "y": now.y})
    return replace(now, y=given.get("y")), for_diffusers(given)


@pytest.mark.parametrize(
    ("config", "ratio", "learns", "mix", "size"),
    [
        (SD1, 0.5, False, 1.0, (64, 64)),
        (SD1, 0.25, False, 1.0, (128, 64)),
        (SD2, 0.25, False, 1.0, (64, 64)),
        (SMALL_XL, 0.5, True, 1.0, (64, 64)),
        (SMALL_XL, 0.25, True, 0.6, (64, 96)),
    ],
)
def test_a_unet_with_the_network_is_diffusers(
    tmp_path: Path, config: UNetConfig, ratio: float, learns: bool, mix: float, size: tuple[int, int]
) -> None:
    """The base's norms have the U-Net's eps: diffusers gives some of them another."""
    unet, hint = unet_of(config), picture(*size)
    now, given = sized(call(config, size))
    control = adapter(config, ratio, learns, mix)
    oracle = controlled(config, unet.state_dict(), control, mix)
    with torch.no_grad():
        theirs = oracle(**given, controlnet_cond=hint.image.expand(2, -1, -1, -1), conditioning_scale=0.7).sample
    (tmp_path / "config.json").write_text(json.dumps({"time_embedding_mix": mix, "num_attention_heads": None}))
    model = loaded(tmp_path, dict(control.state_dict()))
    model.check(BaseModel(config, "tiny"))
    ours = hooked(unet, now, model.bind([hint], settings(config)), size=size, weight=0.7)
    assert error(plain(unet, now), theirs) > 0.05
    assert error(ours, theirs) < 1e-4


def test_odd_sizes_are_met(tmp_path: Path) -> None:
    """Which diffusers' model of both cannot have: as the U-Net rounds, so does the network."""
    unet, now = unet_of(SD1), call(SD1, (200, 136))
    model = loaded(tmp_path, dict(adapter(SD1).state_dict()))
    ours = hooked(unet, now, model.bind([picture(200, 136)], settings()), size=(200, 136))
    assert torch.isfinite(ours).all()
    assert error(ours, plain(unet, now)) > 0.01


def test_files_of_vislearn_have_scales_and_a_base_beside(tmp_path: Path) -> None:
    """`scale_list` multiplies what each connection adds."""
    unet, now = unet_of(SD1), call(SD1)
    weights = vislearn(dict(adapter(SD1).state_dict()))
    bound = loaded(tmp_path, weights).bind([picture(64, 64)], settings())
    doubled = {**weights, "scale_list": weights["scale_list"] * 2}
    twice = loaded(tmp_path, doubled).bind([picture(64, 64)], settings())
    assert error(hooked(unet, now, twice, weight=0.5), hooked(unet, now, bound)) < 1e-5
    assert error(hooked(unet, now, twice), hooked(unet, now, bound)) > 0.01
    with pytest.raises(ModelFileError, match="24 scales for 25 connections"):
        loaded(tmp_path, {**weights, "scale_list": weights["scale_list"][:-1]})


def test_each_picture_of_a_batch_has_its_own(tmp_path: Path) -> None:
    unet, now = unet_of(SD1), call(SD1, images=(0, 1, 0, 1))
    model = loaded(tmp_path, dict(adapter(SD1).state_dict()))
    hints = [picture(64, 64), Hint(torch.rand(1, 3, 64, 64), None, picture(64, 64).display)]
    both = hooked(unet, now, model.bind(hints, settings()))
    for image, hint in enumerate(hints):
        rows = [row for row in range(4) if now.images[row] == image]
        part = replace(now.select(rows), images=(0, 0))
        assert error(both[rows], hooked(unet, part, model.bind([hint], settings()))) < 1e-5


def test_control_modes_and_weights_of_nothing(tmp_path: Path) -> None:
    """Its ramp is that of ControlNets, from the first level to the middle."""
    unet, now = unet_of(SD1), call(SD1)
    model, none = loaded(tmp_path, dict(adapter(SD1).state_dict())), plain(unet, call(SD1))
    bound = model.bind([picture(64, 64)], settings())
    assert torch.equal(hooked(unet, now, bound, weight=0.0), none)
    assert torch.equal(hooked(unet, now, bound, region=torch.zeros(1, 1, 64, 64)), none)
    assert error(hooked(unet, now, bound, region=torch.ones(1, 1, 64, 64)), hooked(unet, now, bound)) < 1e-6
    soft = model.bind([picture(64, 64)], settings(mode=ControlMode.prompt))
    assert error(hooked(unet, now, soft), hooked(unet, now, bound)) > 0.001
    assert error(hooked(unet, now, soft), none) < error(hooked(unet, now, bound), none)
    strict = model.bind([picture(64, 64)], settings(mode=ControlMode.control))
    alone = hooked(unet, now, strict, control_mode=ControlMode.control)
    assert torch.equal(alone[1], none[1])
    assert not torch.equal(alone[0], none[0])


def test_one_whose_timesteps_are_its_own_refuses_a_region(tmp_path: Path) -> None:
    model = loaded(tmp_path, dict(adapter(SMALL_XL, learns_time=True).state_dict()))
    assert not model.bind([picture(64, 64)], settings(SMALL_XL)).regional


@pytest.mark.parametrize(("config", "other"), [(SD1, SMALL_XL), (SMALL_XL, SD1), (SD1, SD2)])
def test_which_checkpoints_fit_is_known_before_loading(tmp_path: Path, config: UNetConfig, other: UNetConfig) -> None:
    model = loaded(tmp_path, dict(adapter(config).state_dict()))
    facts = FactReader(discover()).read(tmp_path / "net.safetensors")
    assert (facts.family, facts.kind) == ("controlnet_xs", "a ControlNet-XS model")
    assert facts.mismatch(BaseModel(config, "tiny")) == ""
    assert facts.mismatch(BaseModel(other, "tiny"))
    model.check(BaseModel(config, "tiny"))
    with pytest.raises(BaseModelError, match="cannot control"):
        model.check(BaseModel(other, "tiny"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("mid_block.ctrl_to_base.bias"), r"missing: middle_block_out\.0\.bias"),
        (lambda w: w.pop("down_blocks.0.resnets.0.conv1.weight"), r"input_blocks\.1\.0\.in_layers\.2\.weight"),
        (lambda w: w.update(extra=torch.ones(1)), "not part of the network: extra"),
        (lambda w: w.update({"mid_block.ctrl_to_base.bias": torch.ones(5)}), "of another shape"),
    ],
)
def test_files_are_whole_or_refused(tmp_path: Path, change: Any, words: str) -> None:
    weights = dict(adapter(SD1).state_dict())
    change(weights)
    with pytest.raises(ModelFileError, match=words):
        loaded(tmp_path, weights)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"time_embedding_mix": 1.5}, "a number from 0 to 1"),
        ({"num_attention_heads": [1, 3, 7, 5]}, "heads for widths"),
    ],
)
def test_what_lies_beside_must_fit(tmp_path: Path, stated: dict[str, Any], words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(stated))
    with pytest.raises(ModelFileError, match=words):
        loaded(tmp_path, dict(adapter(SD1).state_dict()))
