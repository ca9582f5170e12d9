"""`--use-cpu controlnet`: control models compute on the processor in float32, beside a U-Net on a card in any type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lib_controlnet.nets.config import UNetConfig

from .passes import CONFIGS, FAMILIES, ROWS, Made, Studio, Types, data_sheets, effect_preprocessors, unit
from .pretend import pretended

UNET_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def check(folder: Path, family: str, config: UNetConfig, units: list[Any], dtype: torch.dtype, kind: str) -> Made:
    """Residuals and latents arrive on the card and in the U-Net's type: the numbers are those without a card."""
    studio, types = Studio(folder, config, family), Types(dtype, torch.float32)
    expected = studio.made(units, ROWS["batch with an AND"], types=types)
    with pretended(kind) as card:
        made = studio.made(units, ROWS["batch with an AND"], card, types, control_device="cpu")
    assert all(torch.isfinite(output).all() for output in made.outputs)
    assert all(torch.equal(*pair) for pair in zip(made.outputs, expected.outputs, strict=True))
    return made


@pytest.mark.parametrize("dtype", UNET_TYPES, ids=str)
@pytest.mark.parametrize("low_vram", [False, True])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_net_on_the_processor_steers_a_unet_on_a_card(
    tmp_path: Path, family: str, low_vram: bool, dtype: torch.dtype
) -> None:
    units = [unit(preprocessor="none", low_vram=low_vram), unit(1, preprocessor="none", model="second", weight=0.7)]
    made = check(tmp_path, family, FAMILIES[family][1]["SD1"], units, dtype, "cuda")
    assert "up" in {event.kind for event in made.events[0]}, "residuals come from the processor"


@pytest.mark.parametrize("preprocessor", effect_preprocessors())
def test_effects_act_on_the_card_all_the_same(tmp_path: Path, preprocessor: str) -> None:
    config = CONFIGS["SDXL" if data_sheets()[preprocessor].effect == "revision" else "SD1"]
    check(tmp_path, "controlnet", config, [unit(preprocessor=preprocessor)], torch.float16, "mps")
