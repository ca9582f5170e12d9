"""From a network to each kind of file and back: the same sizes, the same numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_controlnet.core.errors import BaseModelError, ModelFileError
from lib_controlnet.loading.build import fill
from lib_controlnet.loading.canonical import canonical
from lib_controlnet.loading.detect import describe_kind
from lib_controlnet.loading.difference import add_base
from lib_controlnet.loading.reader import read_weights
from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.operations import Operations
from lib_controlnet.nets.unet import UNetModel
from tests.nets.ldm_oracle import example, randomise
from tests.nets.sizes import DEMO, SD1, SD2, SDXL

from .files import NAMINGS, WRITERS, controlnet, plain, write_pickle, write_safetensors

HINT = (8, 16, 24, 32)
SMALL = ControlNetConfig(replace(DEMO, model_channels=32), hint_widths=HINT)


cached_controlnet = cache(controlnet)


def load(path: Path, dtype: torch.dtype | None = torch.float32, operations: Operations | None = None) -> ControlNet:
    weights = canonical(read_weights(path).weights)
    config = ControlNetConfig.from_weights(weights)
    return fill(lambda: ControlNet(config, operations), weights, dtype, "cpu", name=path.name)


def outputs(net: ControlNet) -> tuple[Tensor, ...]:
    inputs = example(net.config)
    hint = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    return net(inputs["x"], net.encode_hint(hint), *list(inputs.values())[1:])


def same(ours: ControlNet, source: ControlNet) -> bool:
    return all(torch.equal(a, b) for a, b in zip(outputs(ours), outputs(source), strict=True))


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("naming", ["plain", "diffusers"])
def test_every_format_gives_back_the_network(tmp_path: Path, naming: str, writer: str) -> None:
    source = controlnet(SMALL)
    path = WRITERS[writer](NAMINGS[naming](source), tmp_path)
    loaded = load(path)
    assert loaded.control_config == SMALL
    assert same(loaded, source)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("size", [SD1, SD2, SDXL], ids=["SD1", "SD2", "SDXL"])
def test_every_naming_gives_back_the_network(tmp_path: Path, naming: str, size: UNetConfig) -> None:
    source = cached_controlnet(ControlNetConfig(size, hint_widths=HINT))
    path = write_safetensors(NAMINGS[naming](source), tmp_path)
    loaded = load(path)
    assert loaded.control_config == source.control_config
    ours, theirs = loaded.state_dict(), source.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    if naming == "diffusers":  # once a size: same sizes and same weights make the same network
        assert same(loaded, source)
    assert "ControlNet" in describe_kind(read_weights(path).weights.keys())


@pytest.mark.parametrize("storage", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("writer", ["safetensors", "pth"])
def test_smaller_storage_computes_as_if_cast_before(tmp_path: Path, storage: torch.dtype, writer: str) -> None:
    source = controlnet(SMALL)
    path = WRITERS[writer]({key: value.to(storage) for key, value in source.state_dict().items()}, tmp_path)
    source.to(storage).to(torch.float32)
    cast = load(path)
    assert {weight.dtype for weight in cast.parameters()} == {torch.float32}
    assert same(cast, source)
    kept = load(path, dtype=None, operations=Operations(compute_dtype=torch.float32))
    assert {weight.dtype for weight in kept.parameters()} == {storage}
    assert same(kept, source)


def test_the_network_outlives_its_file(tmp_path: Path) -> None:
    """A user replaces or cuts a model file in place while its network is in use."""
    for writer in ("safetensors", "pth"):
        source = controlnet(SMALL)
        path = WRITERS[writer](plain(source), tmp_path)
        loaded = load(path)
        with path.open("r+b") as file:
            file.write(b"\xff" * 200_000)
            file.truncate(200_000)
        assert same(loaded, source)
        path.unlink()


def test_a_filled_network_is_ready_to_infer(tmp_path: Path) -> None:
    loaded = load(write_safetensors(plain(controlnet(SMALL)), tmp_path))
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())


@pytest.mark.parametrize("prune", [False, True], ids=["complete", "unchanged layers left out"])
def test_difference_files_become_the_controlnet_with_the_base_added(tmp_path: Path, prune: bool) -> None:
    unet = UNetModel(SMALL.unet)
    randomise(unet, seed=8)
    base = unet.state_dict()
    source = controlnet(SMALL)
    state = source.state_dict()
    unchanged = "input_blocks.1.0.in_layers.2.weight"
    state[unchanged].copy_(base[unchanged])
    stored = {key: value - base[key] if key in base else value for key, value in state.items()}
    if prune:
        del stored[unchanged]
    path = write_safetensors({**stored, "difference": torch.tensor(1.0)}, tmp_path)

    weights = add_base(canonical(read_weights(path).weights), base)
    assert ControlNetConfig.from_weights(weights) == SMALL
    loaded = fill(lambda: ControlNet(SMALL), weights, torch.float32, "cpu")
    for key, value in loaded.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=1e-6)
    assert torch.equal(loaded.state_dict()[unchanged], base[unchanged])


def test_differences_to_another_kind_of_unet_are_refused() -> None:
    base = {"input_blocks.0.0.weight": torch.zeros(64, 4, 3, 3)}
    with pytest.raises(
        BaseModelError, match=r"input_blocks\.0\.0\.weight: \(32, 4, 3, 3\) in the file, \(64, 4, 3, 3\)"
    ):
        add_base(plain(controlnet(SMALL)), base)


def test_differences_are_added_to_half_precision_bases_in_full_precision() -> None:
    weights = {"difference": torch.tensor(1.0), "time_embed.0.bias": torch.tensor([1e-4], dtype=torch.float16)}
    added = add_base(weights, {"time_embed.0.bias": torch.tensor([1.0], dtype=torch.float16)})
    assert dict(added) == {"time_embed.0.bias": pytest.approx(torch.tensor([1.0001]), abs=1e-7)}


def test_missing_surplus_and_misshapen_weights_are_all_listed() -> None:
    weights = controlnet(SMALL).state_dict()
    del weights["zero_convs.2.0.weight"], weights["time_embed.0.bias"]
    weights["input_blocks.0.0.weight"] = torch.zeros(16, 4, 3, 3)
    weights |= {f"extra.{index}": torch.zeros(1) for index in range(6)}
    with pytest.raises(ModelFileError) as caught:
        fill(lambda: ControlNet(SMALL), weights, torch.float32, "cpu", name="broken.pth")
    assert str(caught.value) == (
        "ControlNet, model: broken.pth does not hold a whole ControlNet. "
        "Found: 2 tensors missing: time_embed.0.bias, zero_convs.2.0.weight; "
        "6 tensors not part of the network: extra.0, extra.1, extra.2, extra.3 and 2 more; "
        "1 tensors of another shape: input_blocks.0.0.weight (16, 4, 3, 3) instead of (32, 4, 3, 3). "
        "What to do: download the file again, or choose another control model."
    )


def test_known_extras_are_left_out_where_the_caller_says_so() -> None:
    source = controlnet(SMALL)
    weights = source.state_dict() | {"extra.one": torch.zeros(1)}
    assert same(fill(lambda: ControlNet(SMALL), weights, None, "cpu", ignored=("extra.*",)), source)


def test_a_pickle_of_part_of_a_storage_gives_only_that_part(tmp_path: Path) -> None:
    """Slices share their storage in a pickle; the copy must be the slice."""
    table = torch.arange(1000.0)
    path = write_pickle({"a": table[10:20], "b": table.view(10, 100).t()}, tmp_path)
    weights = read_weights(path).weights
    assert torch.equal(weights["a"], table[10:20])
    assert torch.equal(weights["b"], table.view(10, 100).t())
