"""What a unit says beforehand: about files that fit, that do not, and that are no control models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import save_file

from lib_controlnet.engine.services import PageServices
from lib_controlnet.families.base import BaseModel
from lib_controlnet.ui.layers import choose_shape, draw
from lib_controlnet.ui.notes import unit_notes
from lib_controlnet.ui.preview import made_note
from tests.engine.tiny import SDXL_SHAPED, tiny_controlnet
from tests.families.ip_files import write
from tests.standalone import tiny_checkpoint
from tests.surface_services import make_services


@pytest.fixture
def with_model(tmp_path: Path) -> PageServices:
    """Services with a control model "fits" for SDXL-shaped checkpoints, which are loaded."""
    services = make_services(tmp_path)
    model = tiny_controlnet(SDXL_SHAPED)
    save_file(model.state_dict(), tmp_path / "fits.safetensors")
    return replace(services, base_model=lambda: BaseModel(SDXL_SHAPED, "big.safetensors"))


def said(services: PageServices, model: str, preprocessor: str = "none", **more: Any) -> str:
    start, end, mode = more.get("start", 0.0), more.get("end", 1.0), more.get("mode", "Balanced")
    return unit_notes(services, preprocessor, model, start, end, mode, "All")[0]


def test_fitting_model_says_size_and_cost(with_model: PageServices) -> None:
    text = said(with_model, "fits")
    assert "cnet-good" in text
    assert "Fits big.safetensors" in text
    assert "MB of memory" in text


def test_cost_follows_range_and_mode(with_model: PageServices) -> None:
    assert "about 22%" in said(with_model, "fits", end=0.5)
    assert "about 22%" in said(with_model, "fits", mode="ControlNet is more important")


def test_cost_is_the_kinds(with_model: PageServices, tmp_path: Path) -> None:
    write(tmp_path / "face.safetensors", "faceid", SDXL_SHAPED)
    assert "Adds next to nothing to the time of the steps" in said(with_model, "face")


def test_mismatch_says_both_kinds(with_model: PageServices) -> None:
    other = replace(with_model, base_model=lambda: BaseModel(tiny_checkpoint.unet_config(), "small.ckpt"))
    text = said(other, "fits")
    assert "cnet-bad" in text
    assert "does not work with small.ckpt" in text


def test_broken_and_missing_files_are_told_apart(with_model: PageServices) -> None:
    assert "does not work" in said(with_model, "own_model")
    assert "is not here" in said(with_model, "nowhere at all [12345678]")
    assert said(with_model, "None") == ""


def test_without_a_checkpoint_nothing_is_claimed(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    save_file(tiny_controlnet(SDXL_SHAPED).state_dict(), tmp_path / "fits.safetensors")
    assert "no checkpoint is loaded yet" in said(services, "fits")


def test_names_cannot_write_html(with_model: PageServices) -> None:
    assert "<script>" not in said(with_model, "<script>alert(1)</script>")


def test_plot_has_a_bar_for_each_layer_and_says_what_is_wrong() -> None:
    text, plot = choose_shape("Uniform", 0.5, 13)
    assert text.split(", ") == ["0.5"] * 13
    assert plot.count("<rect") == 13
    assert "not a number" in draw("1, x")


def test_a_map_that_has_no_size_of_its_own_tells_none() -> None:
    spec = SimpleNamespace(label="none", id="none", resolution=None)
    result: Any = SimpleNamespace(spec=spec, resolution=512, notes=())
    assert ">none, 0.02 s<" in made_note(result, {"pixel_perfect": False}, (128, 128), 0.02)
