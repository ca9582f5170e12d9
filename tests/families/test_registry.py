"""Families are found, ordered and asked; files of other kinds are refused with what was sought and found."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from lib_controlnet.core.errors import ModelFileError
from lib_controlnet.families import registry
from lib_controlnet.families.base import Runtime
from tests.engine.tiny import tiny_controlnet, tiny_unet

CPU = Runtime(torch.device("cpu"), torch.float32)


def test_every_family_of_the_folder_is_found_once():
    ids = [family.id for family in registry.discover()]
    assert "controlnet" in ids
    assert len(ids) == len(set(ids))


def test_a_family_knows_its_file_and_gives_its_weights(tmp_path):
    net = tiny_controlnet()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    model = registry.load_model(tmp_path / "net.safetensors", CPU, registry.discover())
    loaded = model.net.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in net.state_dict().items())
    assert model.outputs == len(net.zero_convs) + 1
    assert model.residence.size == sum(value.nbytes for value in net.state_dict().values())


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ({"lora_unet_down.lora_up.weight": torch.zeros(1)}, "LoRA"),
        ({f"model.diffusion_model.{k}": v for k, v in tiny_unet().state_dict().items()}, "U-Net"),
        ({"something.else": torch.zeros(1)}, "something.else"),
    ],
)
def test_other_kinds_are_refused_with_what_was_sought_and_found(tmp_path, weights, found):
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(ModelFileError) as caught:
        registry.load_model(tmp_path / "other.safetensors", CPU, registry.discover())
    text = str(caught.value)
    assert "other.safetensors" in text
    assert found in text
    assert all(family.id in text for family in registry.discover())
    assert "…" not in text


def test_of_a_kind_of_which_a_file_has_a_part_the_rest_is_named(tmp_path):
    weights = {key: value for key, value in tiny_controlnet().state_dict().items() if "middle_block_out" not in key}
    save_file(weights, tmp_path / "part.safetensors")
    with pytest.raises(ModelFileError, match=r"controlnet \(no middle_block_out\.0\.weight\)"):
        registry.load_model(tmp_path / "part.safetensors", CPU, registry.discover())


def families(**before: tuple[str, ...]) -> dict:
    return {name: SimpleNamespace(id=name, before=later) for name, later in before.items()}


def test_families_are_asked_in_the_order_they_ask_for():
    ordered = registry._ordered(families(plain=(), union=("plain",), lora=("union", "plain")))
    assert [family.id for family in ordered] == ["lora", "union", "plain"]


def test_an_order_that_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="before one another: a, b"):
        registry._ordered(families(a=("b",), b=("a",)))
