"""Which ControlNets fit which checkpoints: only what must agree is compared, before and after loading."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib_controlnet.core.errors import BaseModelError, ModelFileError
from lib_controlnet.core.hints import Hint
from lib_controlnet.core.step import Step
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from tests.engine.tiny import HINT_WIDTHS, SD1_SHAPED, SDXL_SHAPED, randomise, tiny_unet
from tests.families.driving import settings

CPU = Runtime(torch.device("cpu"), torch.float32)
SDXL = BaseModel(SDXL_SHAPED, "a checkpoint")


def load(folder, config: UNetConfig, widths=HINT_WIDTHS, hint_channels=3):
    path = folder / "control.safetensors"
    net = randomise(ControlNet(ControlNetConfig(config, hint_channels, widths)), 3)
    save_file(net.state_dict(), path)
    return load_model(path, CPU, discover()), FactReader(discover()).read(path)


def step_of(config: UNetConfig) -> Step:
    y = None if config.adm_channels is None else torch.randn(2, config.adm_channels)
    return Step(
        torch.randn(1, config.in_channels, 8, 8).repeat(2, 1, 1, 1),
        torch.tensor([500, 500]),
        torch.randn(2, 7, config.context_dim),
        y,
        (True, False),
        (0, 0),
        0.5,
    )


SHAPES = [
    (depth, middle, adm)
    for depth, middle, adm in product([(0, 1, 2), (0, 0, 1), (0, 0, 0), (0, 2, 0), (0, 1, 1)], [2, 0, -1], [40, None])
]


@pytest.mark.parametrize(("depth", "middle", "adm"), SHAPES)
def test_transformers_may_be_fewer_than_the_checkpoints(tmp_path, depth, middle, adm):
    """SDXL's full, mid and small models, and every mix: accepted, and their residuals fit the U-Net's blocks."""
    config = replace(SDXL_SHAPED, transformer_depth=depth, middle_depth=middle, adm_channels=adm)
    model, facts = load(tmp_path, config)
    model.check(SDXL)
    assert facts.mismatch(SDXL) == ""
    step = step_of(SDXL_SHAPED)
    control = model.bind([Hint(torch.rand(1, 3, 64, 64), None, np.zeros((64, 64, 3), np.uint8))], settings()).residuals(
        step
    )
    shapes = []
    unet = tiny_unet(SDXL_SHAPED)
    for block in (*unet.input_blocks, unet.middle_block):
        block.register_forward_hook(lambda _module, _inputs, output: shapes.append(output.shape))
    unet(step.x, step.timesteps, step.context, step.y)
    assert [residual.shape for residual in (*control.skip, control.middle)] == shapes
    assert all(bool(torch.isfinite(residual).all()) for residual in (*control.skip, control.middle))


@pytest.mark.parametrize("no_text", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channel_mult": (1, 2, 2), "transformer_depth": (0, 1, 2)}, "residuals"),
        ({"model_channels": 64}, "residuals"),
        ({"num_res_blocks": 1}, "residuals"),
        ({"context_dim": 1024}, "text width 1024, the checkpoint's 2048"),
        ({"adm_channels": 48}, "width of y 48, the checkpoint's 40"),
        ({"in_channels": 9}, "latent channels 9, the checkpoint's 4"),
    ],
)
def test_what_must_agree_is_named(tmp_path, change, words, no_text):
    config = replace(SDXL_SHAPED, **change)
    if no_text and "context_dim" not in change:
        config = replace(config, transformer_depth=(0,) * len(config.transformer_depth), middle_depth=0)
    model, facts = load(tmp_path, config)
    with pytest.raises(BaseModelError, match=words):
        model.check(SDXL)
    assert facts.mismatch(SDXL)


def test_y_is_not_missed_by_a_checkpoint_without(tmp_path):
    base = BaseModel(replace(SDXL_SHAPED, adm_channels=None), "a checkpoint")
    model, _ = load(tmp_path, SDXL_SHAPED)
    with pytest.raises(BaseModelError, match="width of y 40, the checkpoint's None"):
        model.check(base)


def test_an_inpainting_checkpoints_own_channels_do_not_matter(tmp_path):
    model, facts = load(tmp_path, SD1_SHAPED)
    base = BaseModel(replace(SD1_SHAPED, in_channels=9), "an inpainting checkpoint")
    model.check(base)
    assert not facts.mismatch(base)


@pytest.mark.parametrize("widths", [(8,), (8, 8, 16), (8, 8, 16, 16, 16)])
def test_a_hint_encoder_of_another_scale_is_refused(tmp_path, widths):
    with pytest.raises(ModelFileError, match="instead of 1/8"):
        load(tmp_path, SD1_SHAPED, widths)


@pytest.mark.parametrize(("adm", "context", "words"), [(2816, 0, "SDXL"), (None, 0, "any text"), (2816, 2048, "SDXL")])
def test_a_model_without_text_is_described(adm, context, words):
    config = replace(SDXL_SHAPED, adm_channels=adm, context_dim=context)
    assert words in BaseModel(config, "").kind
