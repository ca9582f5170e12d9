"""PowerPaint v2 in whole U-Nets against diffusers' blocks and transformers' CLIP; how its two files find each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from annotator.sd_controlnet.registry import discover as discover_preprocessors
from lib_controlnet.core.errors import BaseModelError, ModelFileError, PreprocessorError
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from tests.device.passes import CONFIGS, ROWS, SIZE, Studio, unit
from tests.families import powerpaint_files
from tests.families.brushnet_reference import together
from tests.families.driving import hooked, settings
from tests.families.test_brushnet import holed
from tests.families.test_lllite import call, error, latents, plain, unet_of
from tests.nets.sizes import SD1, SDXL

CPU = Runtime(torch.device("cpu"), torch.float32)
HEARING = replace(SD1, context_dim=128)
"""With a text of two heads."""
TASKS = {
    "object": ("P_obj", "P_obj", "P_obj", "P_obj"),
    "shape": ("P_shape", "P_ctxt", "P_shape", "P_ctxt"),
    "removal": ("P_ctxt", "P_ctxt", "P_obj", "P_obj"),
    "outpainting": ("P_ctxt", "P_ctxt", "P_obj", "P_obj"),
    "context": ("P_ctxt", "P_ctxt", "", ""),
}
"""What A and B say to cond rows and to the others, in the authors' demo and in ComfyUI-BrushNet."""


def loaded(path: Path) -> Any:
    return load_model(path, CPU, discover())


def sheet(task: str) -> Any:
    return discover_preprocessors(None).get(f"powerpaint_{task}").spec


@pytest.mark.parametrize("size", [(64, 64), (192, 128)])
@pytest.mark.parametrize("task", TASKS)
@torch.no_grad()
def test_a_unet_with_the_network_is_the_authors(tmp_path: Path, task: str, size: tuple[int, int]) -> None:
    if task != "shape" and size != (64, 64):
        pytest.skip("the size is nothing to the task")
    net, speaker = powerpaint_files.write(tmp_path / "net.safetensors", HEARING)
    unet, now, hint = unet_of(HEARING), call(HEARING, size), holed(*size)
    assert hint.mask is not None
    fit = 0.4
    first, second, third, fourth = (speaker.says(word) for word in TASKS[task])
    cond, uncond = first * fit + second * (1 - fit), third * fit + fourth * (1 - fit)
    context = torch.stack([cond if is_cond else uncond for is_cond in now.is_cond])
    kept = 1 - functional.interpolate(hint.mask, now.x.shape[2:], mode="nearest")
    known = torch.cat([latents().encode(hint.image.clamp(min=0)), kept], dim=1)
    added = net(torch.cat([now.x, known.expand(2, -1, -1, -1)], dim=1), now.timesteps, None, context)
    inputs = {"x": now.x, "timesteps": now.timesteps, "context": now.context}
    theirs = together(unet, inputs, added, 0.7)
    told = sheet(task)
    asked = settings(HEARING, checkpoint=latents, options=told.effect_options, params=(fit,) if told.sliders else ())
    ours = hooked(unet, now, loaded(tmp_path / "net.safetensors").bind([hint], asked), size=size, weight=0.7)
    assert error(plain(unet, now), theirs) > 0.05
    assert error(ours, theirs) < 1e-5


def test_tasks_differ_and_an_object_is_the_usual_one(tmp_path: Path) -> None:
    powerpaint_files.write(tmp_path / "net.safetensors", HEARING)
    model, unet, now, hint = loaded(tmp_path / "net.safetensors"), unet_of(HEARING), call(HEARING), holed(64, 64)

    def drawn(**options: Any) -> Tensor:
        return hooked(unet, now, model.bind([hint], settings(HEARING, checkpoint=latents, **options)))

    found = {task: drawn(options={"powerpaint": task}) for task in TASKS}
    assert torch.equal(drawn(), found["object"])
    assert torch.equal(found["removal"], found["outpainting"])
    assert error(found["removal"], found["object"]) > 1e-4
    assert error(found["removal"], found["context"]) > 1e-4
    tight, loose = (drawn(options={"powerpaint": "shape"}, params=(fit,)) for fit in (1.0, 0.3))
    assert error(tight, loose) > 1e-4
    assert torch.equal(found["shape"], tight)  # without a slider: as the mask is


def test_both_files_are_known_before_loading(tmp_path: Path) -> None:
    powerpaint_files.write(tmp_path / "net.safetensors", HEARING)
    facts = FactReader(discover()).read(tmp_path / "net.safetensors")
    assert (facts.family, facts.kind) == ("powerpaint", "a PowerPaint model (its text encoder lies beside it)")
    assert facts.mismatch(BaseModel(HEARING, "tiny")) == ""
    assert facts.mismatch(BaseModel(SD1, "tiny"))  # hears another text encoder's width
    with pytest.raises(BaseModelError, match="cannot control"):
        loaded(tmp_path / "net.safetensors").check(BaseModel(SDXL, "tiny"))
    with pytest.raises(ModelFileError, match="PowerPaint's text encoder"):
        loaded(tmp_path / "pytorch_model.bin")


def _without_encoder(folder: Path) -> None:
    (folder / "pytorch_model.bin").unlink()


def _two_encoders(folder: Path) -> None:
    (folder / "another.bin").write_bytes((folder / "pytorch_model.bin").read_bytes())


def _encoder_of_another_width(folder: Path) -> None:
    torch.save(powerpaint_files.Speaker(64).file, folder / "pytorch_model.bin")


def _encoder_cut(folder: Path) -> None:
    weights = powerpaint_files.Speaker(128).file
    weights.pop("text_model.encoder.layers.1.self_attn.q_proj.bias")
    torch.save(weights, folder / "pytorch_model.bin")


def _network_cut(folder: Path) -> None:
    weights = load_file(folder / "net.safetensors")
    weights.pop("down_blocks.1.attentions.0.proj_in.bias")
    save_file(weights, folder / "net.safetensors")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_without_encoder, "none in .*pytorch_model.bin of the same folder"),
        (_two_encoders, "several: another.bin, pytorch_model.bin"),
        (_encoder_of_another_width, "not of one model.*hears 128.*says 64"),
        (_encoder_cut, r"missing: text_model\.encoder\.layers\.1\.self_attn\.q_proj\.bias"),
        (_network_cut, r"missing: input_blocks\.4\.1\.proj_in\.bias"),
    ],
)
def test_files_are_whole_or_refused(tmp_path: Path, harm: Any, words: str) -> None:
    powerpaint_files.write(tmp_path / "net.safetensors", HEARING)
    harm(tmp_path)
    with pytest.raises(ModelFileError, match=words):
        loaded(tmp_path / "net.safetensors")


def test_the_encoder_may_lie_in_the_folder_around(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    powerpaint_files.write(tmp_path / "network" / "net.safetensors", HEARING)
    (tmp_path / "network" / "pytorch_model.bin").rename(tmp_path / "text.bin")
    assert loaded(tmp_path / "network" / "net.safetensors")


def test_a_task_for_a_model_that_hears_none_stops_the_job(tmp_path: Path) -> None:
    studio = Studio(tmp_path, CONFIGS["SD1"], "controlnet")
    asked = unit(preprocessor="powerpaint_removal", mask=np.full((SIZE, SIZE), 255, np.uint8))
    with pytest.raises(PreprocessorError, match=r"unit 0, module: .*another kind.*that reads powerpaint"):
        studio.made((asked,), rows=ROWS["guidance"])
