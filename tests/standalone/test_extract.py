"""`launch.py extract-lora`: the factors against LAPACK's SVD, the file through the family that reads Control-LoRAs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_controlnet.core.errors import BaseModelError
from lib_controlnet.families.base import Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.loading.extract import low_rank, ranks_within
from lib_controlnet.nets.unet import UNetModel
from standalone.extract.cli import extract, main
from tests.engine.tiny import SD1_SHAPED, randomise, tiny_controlnet, tiny_unet

CONFIG = replace(SD1_SHAPED, channel_mult=(1, 2), num_res_blocks=1, transformer_depth=(1, 0))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, UNetModel]:
    """A ControlNet whose encoder has changed a little since it was the base's, and that base."""
    folder = tmp_path_factory.mktemp("files")
    unet, control = tiny_unet(CONFIG), tiny_controlnet(CONFIG)
    own, base = control.state_dict(), unet.state_dict()
    changed = {key: base[key] + 0.1 * value if key in base else value for key, value in own.items()}
    changed["time_embed.0.bias"] = base["time_embed.0.bias"].clone()
    save_file(changed, folder / "control.safetensors")
    checkpoint = {f"model.diffusion_model.{key}": value for key, value in base.items()}
    save_file({**checkpoint, "first_stage_model.decoder.conv_in.weight": torch.ones(1)}, folder / "base.safetensors")
    return folder / "control.safetensors", folder / "base.safetensors", unet


def product(file: dict[str, Tensor], module: str) -> Tensor:
    return file[f"{module}.up"].flatten(1) @ file[f"{module}.down"].flatten(1)


def test_the_factors_are_the_best_of_their_rank(files: Any) -> None:
    control, _, unet = files
    weights, base = load_file(control), unet.state_dict()
    made = low_rank(weights, base, 6)
    modules = [key.removesuffix(".up") for key in made if key.endswith(".up")]
    assert len(modules) > 20
    for module in modules:
        change = (weights[f"{module}.weight"] - base[f"{module}.weight"]).flatten(1)
        left = float(torch.linalg.svdvals(change.double())[6:].square().sum().sqrt())
        assert float((change - product(made, module)).norm()) <= 1.01 * left + 1e-5
        assert made[f"{module}.up"].dim() == made[f"{module}.down"].dim() == weights[f"{module}.weight"].dim()


def test_what_is_the_bases_is_left_out_and_the_rest_is_whole(files: Any) -> None:
    control, _, unet = files
    weights, base = load_file(control), unet.state_dict()
    made = low_rank(weights, base, 6)
    assert "time_embed.0.bias" not in made
    assert torch.equal(made["input_hint_block.0.weight"], weights["input_hint_block.0.weight"])
    assert torch.equal(made["time_embed.2.bias"], weights["time_embed.2.bias"])


def test_every_direction_is_the_controlnet_again(files: Any, tmp_path: Path) -> None:
    control, base, unet = files
    made = extract(control, base, 4096, tmp_path / "whole.safetensors", "fp32")
    assert made.error < 1e-6
    runtime = Runtime(torch.device("cpu"), torch.float32, lambda: dict(unet.state_dict()))
    model: Any = load_model(made.path, runtime, discover())
    for key, value in load_file(control).items():
        torch.testing.assert_close(model.net.state_dict()[key], value, atol=1e-5, rtol=1e-4)


def test_less_rank_is_a_smaller_file_and_more_error(files: Any, tmp_path: Path) -> None:
    control, base, unet = files
    made = [extract(control, base, rank, tmp_path / f"{rank}.safetensors") for rank in (2, 8, 24)]
    assert made[0].size < made[1].size < made[2].size < made[0].of_size
    assert made[0].error > made[1].error > made[2].error > 1e-4
    runtime = Runtime(torch.device("cpu"), torch.float32, lambda: dict(unet.state_dict()))
    assert load_model(made[1].path, runtime, discover()).holds_base


def test_the_command_says_what_it_costs(files: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    control, base, _ = files
    out = tmp_path / "a folder" / "made.safetensors"
    assert main([str(control), "--base", str(base), "--rank", "8", "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] == out.stat().st_size
    assert 0.0 < report["residual_error"] < 1.0
    assert main([str(base), "--base", str(base), "--json"]) == 1
    assert "is no ControlNet" in json.loads(capsys.readouterr().err)["error"]
    assert main([str(control), "--base", str(control)]) == 1
    assert "no whole Stable Diffusion checkpoint" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(control), "--base", str(base), "--rank", "0"])


def test_a_place_where_no_file_can_be_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for out, words in ((tmp_path, "is a folder"), (tmp_path / "file" / "made", "is a file")):
        assert main(["none.safetensors", "--base", "none.safetensors", "--out", str(out), "--json"]) == 1
        assert words in json.loads(capsys.readouterr().err)["error"]


def test_another_base_is_refused() -> None:
    other = randomise(UNetModel(replace(CONFIG, model_channels=64)), 1).state_dict()
    with pytest.raises(BaseModelError, match="another kind"):
        low_rank(tiny_controlnet(CONFIG).state_dict(), other, 4)


@pytest.mark.parametrize("dtype", ["fp16", "fp8"])
def test_ranks_within_a_size_lose_less_than_one_rank(files: Any, tmp_path: Path, dtype: str) -> None:
    control, base, _ = files
    uniform = extract(control, base, 8, tmp_path / "uniform.safetensors", "fp16")
    part = uniform.size / uniform.of_size
    made = extract(control, base, part, tmp_path / "made.safetensors", dtype)
    assert 0.9 * part < made.size / made.of_size <= part
    assert made.error < uniform.error


def test_the_best_ranks_are_those_of_all_choices(files: Any) -> None:
    """Of every way to give 3 directions to two matrices of one size, by trying them all."""
    base = {f"{name}.weight": torch.zeros(6, 8) for name in "ab"}
    generator = torch.Generator().manual_seed(1)
    control = {key: torch.randn(6, 8, generator=generator) * scale for key, scale in zip(base, (1.0, 0.7), strict=True)}

    def lost(ranks: dict[str, int]) -> float:
        return sum(float(torch.linalg.svdvals(control[key])[ranks.get(key, 0) :].square().sum()) for key in control)

    found = ranks_within(control, base, 3 * 14 + 5)
    assert sum(found.values()) == 3
    assert lost(found) == min(lost({"a.weight": rank, "b.weight": 3 - rank}) for rank in range(4))


def test_a_size_that_cannot_be_is_refused(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    control, base, _ = files
    assert main([str(control), "--base", str(base), "--size", "0.0001"]) == 1
    assert "of its own" in capsys.readouterr().err


def test_a_fifth_of_the_demos_controlnet_is_nearly_all_of_it(tmp_path: Path) -> None:
    """Of 16 held-out pairs it followed the lines as well (F1 0.869, the whole one 0.867)."""
    demo = Path(__file__).parents[2] / "models" / "demo"
    control = demo / "controlnet" / "demo_canny.safetensors"
    made = extract(control, demo / "demo.safetensors", 0.2, tmp_path / "lora.safetensors", "fp8")
    assert made.size <= 0.2 * made.of_size
    assert made.error < 0.15
