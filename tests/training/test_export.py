"""The exported file is read by the nets as any released ControlNet is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.training.export import file_sha256, write_weights
from lib_controlnet.training.kinds.controlnet import write_file
from lib_controlnet.training.kinds.residuals import ResidualControl


def tiny_config() -> ControlNetConfig:
    unet = UNetConfig(4, 4, 32, (1, 2), 1, (0, 1), 1, 16, 8, None, False, None)
    return ControlNetConfig(unet, 3, (4, 4, 8, 8))


def test_round_trip(tmp_path: Path) -> None:
    control = ControlNet(tiny_config())
    path = tmp_path / "made.safetensors"
    write_file(ResidualControl(control), path.with_suffix(""), {"controlnet.type": "canny"})
    weights = load_file(str(path))
    assert ControlNetConfig.from_weights(weights) == tiny_config()
    assert {str(value.dtype) for value in weights.values()} == {"torch.float16"}
    assert "input_hint_block.0.weight" in weights
    assert "zero_convs.0.0.weight" in weights
    for key, value in control.state_dict().items():
        assert torch.equal(weights[key], value.half())
    with safe_open(str(path), "pt") as stream:
        assert stream.metadata()["controlnet.type"] == "canny"


def test_integers_keep_their_type_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "made.safetensors"
    write_weights({"ids": torch.arange(3), "w": torch.ones(2)}, path, {})
    assert load_file(str(path))["ids"].dtype == torch.int64
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="rights are POSIX's")
def test_file_has_the_usual_rights(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    write_weights({"w": torch.ones(2)}, tmp_path / "made.safetensors", {})
    assert (tmp_path / "made.safetensors").stat().st_mode == usual.stat().st_mode


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")
