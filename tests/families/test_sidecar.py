"""What is said of a ControlNet beside its file: pooling, and the order of the hint's channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib_controlnet.core.errors import ModelFileError
from lib_controlnet.core.hints import Hint
from lib_controlnet.families import controlnet
from lib_controlnet.families.base import Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.loading.reader import legacy_hash
from lib_controlnet.loading.sidecar import CHANNELS, POOLED, stated_beside
from tests.engine.tiny import randomise, tiny_controlnet
from tests.families.driving import settings

RUNTIME = Runtime(torch.device("cpu"), torch.float32)
DIFFUSERS = ("controlnet_cond_embedding.conv_in.weight",)


def write(folder: Path, name: str = "model", metadata: dict[str, str] | None = None) -> Path:
    path = folder / f"{name}.safetensors"
    save_file(randomise(tiny_controlnet(), 1).state_dict(), path, metadata)
    return path


def bound(path: Path, scattered: bool = False) -> Any:
    model = load_model(path, RUNTIME, discover())
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    hint = Hint(picture, None, np.zeros((64, 64, 3), np.uint8))
    return model.bind([hint], settings(scattered=scattered)), picture


@pytest.mark.parametrize(
    ("text", "pooled"),
    [
        ("model:\n  params:\n    global_average_pooling: True\n", True),
        ("model:\n  params:\n    global_average_pooling: false # True in others\n", False),
        ("model: {target: cldm.cldm.ControlLDM, params: {linear_start: 0.1, global_average_pooling: yes}}", True),
        ('{"model": {"params": {"global_average_pooling": "True"}}}', True),
        ("# global_average_pooling: True\nmodel: {}\n", False),
        ("- [1, [{global_average_pooling: on}]]", True),
        ("a: &a\n  b: *a\n  global_average_pooling: True\n", True),
        ("", False),
        ("just text", False),
    ],
)
def test_yaml_in_any_style_decides_about_pooling(tmp_path: Path, text: str, pooled: bool) -> None:
    path = write(tmp_path)
    path.with_suffix(".yaml").write_text(text)
    assert bound(path)[0].pooled is pooled


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "global_average_pooling: perhaps",
        "global_average_pooling: 7",
        "x: !!python/name:os.system",
        "[" * 50_000,
    ],
)
def test_yaml_that_is_not_understood_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path)
    path.with_suffix(".yaml").write_text(text)
    with pytest.raises(ModelFileError, match=r"model\.yaml"):
        bound(path)


def test_a_diffusers_folders_config_is_read(tmp_path: Path) -> None:
    config = {"_class_name": "ControlNetModel", "global_pool_conditions": True, CHANNELS: "bgr"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    assert stated_beside(path, DIFFUSERS, {}) == {POOLED: "true", CHANNELS: "bgr"}
    assert stated_beside(path, ["input_hint_block.0.weight"], {}) == {}, "it is another file's"
    path.with_suffix(".yaml").write_text("global_average_pooling: False")
    assert stated_beside(path, DIFFUSERS, {})[POOLED] == "false"
    assert stated_beside(path, DIFFUSERS, {"global_pool_conditions": "True", "x": "y"}) == {
        POOLED: "true",
        CHANNELS: "bgr",
        "global_pool_conditions": "True",
        "x": "y",
    }


@pytest.mark.parametrize(
    "content",
    ["{", "[" * 100_000, '{"global_pool_conditions": 3}', f'{{"{CHANNELS}": "grb"}}', f'{{"{CHANNELS}": []}}'],
)
def test_a_config_that_is_not_understood_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelFileError, match=r"config\.json"):
        stated_beside(tmp_path / "x.safetensors", DIFFUSERS, {})


@pytest.mark.parametrize("content", ["[]", "null", "3", '{"global_pool_conditions": null}', '{"a": "bgr"}'])
def test_a_config_that_says_nothing_of_it_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert stated_beside(tmp_path / "x.safetensors", DIFFUSERS, {}) == {}


def test_the_channels_of_the_hint_are_turned_round(tmp_path: Path) -> None:
    """diffusers' `torch.flip(controlnet_cond, dims=[1])`."""
    control, picture = bound(write(tmp_path, "bgr", {CHANNELS: "bgr"}))
    assert torch.equal(control._hint, picture[:, [2, 1, 0]])
    assert torch.equal(bound(write(tmp_path, "rgb", {CHANNELS: "rgb"}))[0]._hint, picture)


@pytest.mark.parametrize(
    ("name", "scattered", "pooled"),
    [
        ("my_shuffle_canny", False, False),
        ("my_shuffle_canny", True, True),  # the name and the preprocessor agree
        ("canny", True, False),  # as the peers: the hint alone says nothing of the model
        ("control_v11e_sd15_shuffle", False, True),
        ("Control_v11e_sd15_shuffle_fp16", False, True),
    ],
)
def test_without_a_word_only_the_official_models_are_known(
    tmp_path: Path, name: str, scattered: bool, pooled: bool
) -> None:
    assert bound(write(tmp_path, name), scattered)[0].pooled is pooled
    stated = write(tmp_path, name, {POOLED: str(not pooled)})
    assert bound(stated, scattered)[0].pooled is not pooled


def test_the_official_model_is_known_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "renamed")
    monkeypatch.setattr(controlnet, "_SHUFFLE_HASHES", {legacy_hash(path)})
    assert bound(path)[0].pooled


def test_a_file_of_odd_shapes_is_refused_as_a_file(tmp_path: Path) -> None:
    weights = randomise(tiny_controlnet(), 1).state_dict()
    weights["input_hint_block.0.weight"] = torch.zeros(3)
    save_file(weights, tmp_path / "odd.safetensors")
    with pytest.raises(ModelFileError, match=r"odd\.safetensors"):
        load_model(tmp_path / "odd.safetensors", RUNTIME, discover())


@pytest.mark.parametrize(
    "text", ["a: b: s3cret", "s3cret: [", "\ts3cret", "!!python/object/apply:os.getcwd [s3cret]", "%s3cret"]
)
def test_what_is_no_yaml_is_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.safetensors"
    path.with_suffix(".yaml").write_text(text)
    with pytest.raises(ModelFileError, match=r"model\.yaml") as refusal:
        stated_beside(path, (), {})
    assert "s3cret" not in str(refusal.value)
