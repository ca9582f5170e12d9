"""CtrLoRA against diffusers' ControlNet with merged weights that reads a latent; how its two files are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from lib_controlnet.core.checkpoint import Checkpoint
from lib_controlnet.core.errors import BaseModelError, ModelFileError
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from tests.families.ctrlora_files import files
from tests.families.driving import session_of, settings
from tests.families.test_lllite import call, error
from tests.families.test_t2i_adapter import picture
from tests.nets.ldm_oracle import diffusers_controlnet
from tests.nets.sizes import SD1, SDXL

CPU = Runtime(torch.device("cpu"), torch.float32)


def written(folder: Path, weights: dict[str, Tensor], name: str) -> Path:
    folder.mkdir(exist_ok=True)
    if name.endswith(".ckpt"):
        torch.save({"state_dict": weights}, folder / name)
    else:
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / name)
    return folder / name


def loaded(path: Path) -> Any:
    return load_model(path, CPU, discover())


def encode(pixels: Tensor) -> Tensor:
    small = functional.avg_pool2d(pixels * 2 - 1, 8)
    return torch.cat([small, small.mean(1, keepdim=True)], dim=1)


def checkpoint() -> Checkpoint:
    return Checkpoint(torch.linspace(0.99, 0.01, 1000), False, encode, 1)


@pytest.mark.parametrize(("base_name", "folder"), [("base.ckpt", "."), ("base.safetensors", "loras")])
@torch.no_grad()
def test_residuals_are_diffusers_with_the_latent_as_its_sample(tmp_path: Path, base_name: str, folder: str) -> None:
    base, lora, merged = files(SD1)
    written(tmp_path, base, base_name)
    written(tmp_path, {"nothing": torch.ones(1)}, "another.safetensors")
    model = loaded(written(tmp_path / folder, lora, "condition.safetensors"))
    model.check(BaseModel(SD1, "tiny"))
    now, hint = call(SD1, (200, 136)), picture(200, 136)
    control = session_of(
        model.bind([hint], settings(SD1, checkpoint=checkpoint)), size=(200, 136), outputs=13, weight=0.8
    ).begin_call(now)[1]
    net = diffusers_controlnet(merged.control_config, merged.state_dict())
    net.controlnet_cond_embedding = nn.Module()
    net.controlnet_cond_embedding.forward = lambda cond: torch.zeros(1)  # pyright: ignore
    theirs = net(
        encode((hint.image + 1) / 2).expand(2, -1, -1, -1),
        now.timesteps,
        now.context,
        controlnet_cond=torch.zeros(1),
        conditioning_scale=0.8,
    )
    assert control is not None
    outputs = [*theirs.down_block_res_samples, theirs.mid_block_res_sample]
    for ours, one in zip(control.outputs(), outputs, strict=True):
        assert one.std() > 0.01
        assert error(ours, one) < 1e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("control_model.middle_block.1.norm.weight"), r"missing: middle_block\.1\.norm\.weight"),
        (lambda w: w.update({"control_model.extra": torch.ones(1)}), "not part of the network: extra"),
        (
            lambda w: w.pop("control_model.time_embed.0.lora_layer.up.weight"),
            r"time_embed\.0\.lora_layer\.down\.weight without the other",
        ),
    ],
)
def test_files_are_whole_or_refused(tmp_path: Path, change: Any, words: str) -> None:
    base, lora, _ = files(SD1)
    change(lora)
    written(tmp_path, base, "base.safetensors")
    with pytest.raises(ModelFileError, match=words):
        loaded(written(tmp_path, lora, "condition.safetensors"))


def test_a_change_to_another_base_is_refused(tmp_path: Path) -> None:
    base, lora, _ = files(SD1)
    lora["control_model.time_embed.0.lora_layer.up.weight"] = torch.ones(7, 4)
    written(tmp_path, base, "base.safetensors")
    with pytest.raises(BaseModelError, match="another network than the base ControlNet beside it"):
        loaded(written(tmp_path, lora, "condition.safetensors"))


def test_without_one_base_the_remedy_is_said(tmp_path: Path) -> None:
    base, lora, _ = files(SD1)
    path = written(tmp_path / "loras", lora, "condition.safetensors")
    with pytest.raises(ModelFileError, match="which one is not known") as caught:
        loaded(path)
    assert "put the base" in str(caught.value)
    written(tmp_path, base, "one.safetensors")
    written(tmp_path, base, "two.safetensors")
    with pytest.raises(ModelFileError, match=r"several: one\.safetensors, two\.safetensors"):
        loaded(path)
    written(tmp_path / "loras", base, "mine.safetensors")
    assert loaded(path).outputs == 13


def test_what_the_files_are_is_known_before_loading(tmp_path: Path) -> None:
    base, lora, _ = files(SD1)
    path = written(tmp_path, lora, "condition.safetensors")
    facts = FactReader(discover()).read(path)
    assert (facts.family, facts.kind) == ("ctrlora", "a CtrLoRA (its base ControlNet lies beside it)")
    assert facts.mismatch(BaseModel(SD1, "tiny")) == ""
    assert facts.mismatch(BaseModel(SDXL, "tiny"))
    with pytest.raises(ModelFileError, match="the base ControlNet of CtrLoRAs"):
        loaded(written(tmp_path, base, "base.safetensors"))
    with pytest.raises(BaseModelError, match="cannot control"):
        loaded(path).check(BaseModel(SDXL, "tiny"))
