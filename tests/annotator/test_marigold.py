"""Marigold in small, against diffusers' pipeline called as its documentation does, with tokeniser and text encoder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from annotator.sd_controlnet.entries.marigold import PARTS
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import AnnotatorError, Cancelled, Runtime

from .makers import random_runtime
from .makers.marigold import scheduler, text_encoder, unet, vae

ENTRY = discover().get("depth_marigold")
TOKENISER = Path(__file__).parents[2] / "models/demo/clip"


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return random_runtime(ENTRY.spec, tmp_path)


def picture() -> np.ndarray:
    noise = np.random.default_rng(7).integers(0, 256, (64, 100, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4.0).astype(np.float32)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def expected(image: np.ndarray) -> np.ndarray:
    from diffusers import MarigoldDepthPipeline
    from transformers import CLIPTokenizer

    made: Any = MarigoldDepthPipeline(
        unet(), vae(), scheduler(), text_encoder(), CLIPTokenizer.from_pretrained(TOKENISER), prediction_type="depth"
    )
    made.set_progress_bar_config(disable=True)
    padded = Image.fromarray(np.pad(image, ((0, 0), (0, 28), (0, 0)), mode="edge"))
    found = made(
        padded, num_inference_steps=20, processing_resolution=0, generator=torch.Generator("cpu").manual_seed(0)
    )
    return ((1.0 - found.prediction[0, :, :100]) * 255.0).astype(np.uint8)


def test_the_map_is_diffusers_depth_with_near_as_white(runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = expected(picture())
    capsys.readouterr()
    found = ENTRY.load(runtime)(picture(), resolution=64)
    assert isinstance(found, np.ndarray)
    assert wanted.std() > 5, "a constant map would prove nothing"
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
    assert capsys.readouterr() == ("", "")


def test_the_first_diffusers_names_are_read(runtime: Runtime, tmp_path: Path) -> None:
    before = ENTRY.load(runtime)(picture(), resolution=64)
    file = tmp_path / "marigold/vae/diffusion_pytorch_model.safetensors"
    old = load_file(file)
    for new, name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), (r"to_out\.0", "proj_attn")):
        old = {re.sub(rf"\.{new}\.", f".{name}.", key): value for key, value in old.items()}
    assert any(".query." in name for name in old)
    save_file(old, file)
    text = tmp_path / "marigold/text_encoder/model.safetensors"
    save_file({**load_file(text), "text_model.embeddings.position_ids": torch.arange(77)[None]}, text)
    found = ENTRY.load(Runtime(weight_folders=(tmp_path,)))(picture(), resolution=64)
    assert np.array_equal(found, before)


def test_it_stops_between_two_steps(runtime: Runtime, tmp_path: Path) -> None:
    told: list[float] = []
    stopping = Runtime(
        weight_folders=(tmp_path,), progress=told.append, cancelled=lambda: len(told) > 5, networks=runtime.networks
    )
    with pytest.raises(Cancelled):
        ENTRY.load(stopping)(picture(), resolution=64)
    assert told[-1] == pytest.approx(4 / 20)


def test_another_configuration_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "marigold/unet/config.json").write_text('{"block_out_channels": [8, 8, 8]}', encoding="utf-8")
    with pytest.raises(AnnotatorError, match=r"does not describe Marigold's unet"):
        ENTRY.load(runtime)(picture(), resolution=64)


def test_what_is_loaded_says_its_size(runtime: Runtime) -> None:
    ENTRY.load(runtime)(picture(), resolution=64)
    floats = sum(value.numel() for network in (unet(), vae()) for value in network.parameters())
    assert runtime.networks.size == 4 * floats
    assert {weight.folder for part in PARTS.values() for weight in part} == {"marigold"}
