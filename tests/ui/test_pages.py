"""What the panel takes from its surroundings: the pose editor, a pasted caption, a model's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib_controlnet.core.infotext import format_unit
from lib_controlnet.core.modes import ResizeMode
from lib_controlnet.core.panel_options import PROMPT_MODE_KEY, PromptMode
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.engine.generation import Picture
from lib_controlnet.engine.look import Target, look
from lib_controlnet.engine.services import PageServices
from lib_controlnet.ui import compare_page, models_page, models_table, paste
from lib_controlnet.ui.panel import build


def edit_button(services: PageServices, script: Any) -> Any:
    with gr.Blocks() as blocks:
        build(services, "txt2img", False, script)
    name = "txt2img_controlnet_ControlNet-0_edit_pose"
    return next(block for block in blocks.blocks.values() if getattr(block, "elem_id", None) == name)


@pytest.mark.parametrize(("installed", "expected"), [(False, "cnet-own-pose"), (True, "cnet-external-pose")])
def test_the_peers_pose_editor_is_used_where_it_is(
    services: PageServices, script: Any, installed: bool, expected: str
) -> None:
    button = edit_button(replace(services, has_pose_editor=lambda: installed), script)
    assert expected in button.elem_classes
    assert button.visible


def test_pose_editor_can_be_switched_off(services_with: Callable[..., PageServices], script: Any) -> None:
    assert not edit_button(services_with(controlnet_disable_openpose_edit=True), script).visible


@pytest.mark.parametrize("mode", list(PromptMode))
def test_caption_comes_back_with_an_automatic_mode(mode: PromptMode) -> None:
    options = {name: object() for name in ("prompt_mode", "batch_option", "style_align", "caption")}
    targets = dict(paste.option_fields(options))
    params = {"Prompt": "a cat", "ControlNet 0": format_unit(ControlNetUnit()), PROMPT_MODE_KEY: mode.value}
    automatic = mode in (PromptMode.source, PromptMode.result)
    assert targets[options["caption"]](params) == ("a cat" if automatic else None)
    assert targets[options["prompt_mode"]](params) == mode.value


def test_place_of_a_model(services: PageServices, tmp_path: Path) -> None:
    assert models_page._path(services, "own_model") == str(tmp_path / "own_model.safetensors")
    assert models_page._path(services, None) == ""


def test_the_models_page_lists_what_it_could_not_list(services: PageServices, tmp_path: Path) -> None:
    assert models_table.skipped_table(services) == ""
    (tmp_path / "<gone>.safetensors").symlink_to(tmp_path / "nowhere")
    services.library.refresh()
    table = models_table.skipped_table(services)
    assert "&lt;gone&gt;.safetensors" in table
    assert "a link to nothing" in table


def test_no_file_fails_the_models_table(services: PageServices, tmp_path: Path) -> None:
    header = ('{"x": ' + "[" * 100_000).encode()
    (tmp_path / "deep.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    shaped = b'{"x": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}'
    (tmp_path / "infinite.safetensors").write_bytes(len(shaped).to_bytes(8, "little") + shaped)
    keys = ("input_hint_block.0.weight", "zero_convs.0.0.weight", "middle_block_out.0.weight")
    save_file({key: torch.zeros(3) for key in keys}, tmp_path / "odd.safetensors")
    services.library.refresh()
    table = models_table.model_table(services)
    assert table.count("cannot be read as safetensors") == 2
    assert "odd [" in table
    assert "Control models (6)" in table


@pytest.mark.parametrize("ignored", [False, True])
def test_a_comparison_sees_a_drawing_as_a_job_does(services_with: Callable[..., PageServices], ignored: bool) -> None:
    """A mask is the picture of a preprocessor that takes none, unless the setting says otherwise."""
    services = services_with(controlnet_ignore_noninpaint_mask=ignored)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    unit = ControlNetUnit(preprocessor="canny", resolution=64)
    job = look(services, unit, Picture(image, mask, ResizeMode.crop_and_resize), Target((64, 64)))
    compared = compare_page._map(
        services, {"image": image, "mask": mask}, lambda *_, **__: None, 0, "canny", 64, -1, -1
    )
    np.testing.assert_array_equal(compared, job.map)
    square = np.repeat(mask[:, :, None], 3, axis=2)
    seen = look(services, unit, Picture(image if ignored else square, None, ResizeMode.crop_and_resize), Target())
    np.testing.assert_array_equal(compared, seen.map)
