"""The preview of an img2img unit without a picture: the host's, and the label says so."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from lib_controlnet.core.modes import ResizeMode
from lib_controlnet.engine.services import Services
from lib_controlnet.ui.img2img_source import LABEL, SOURCE_LABEL, HostPictures, host_pictures
from lib_controlnet.ui.panel import build
from lib_controlnet.ui.preview import with_source

RED, GREEN = (Image.new("RGB", (16, 8), colour) for colour in ("red", "lime"))


def host(services: Services | None = None, script: Any = None) -> tuple[Any, HostPictures]:
    """A page with three of the host's pictures."""
    with gr.Blocks() as blocks:
        for name in ("img2img_image", "img_inpaint_base", "img_inpaint_mask"):
            gr.Image(elem_id=name)
        gr.Radio(["Just resize", "Crop and resize", "Resize and fill"], type="index", elem_id="resize_mode")
        pictures = host_pictures()
        if services is not None:
            build(services, "img2img", True, script)
    assert pictures is not None
    return blocks, pictures


def test_picture_and_mask_of_the_open_tab_are_read() -> None:
    _blocks, pictures = host()
    mask = Image.fromarray(np.eye(8, 16, dtype=np.uint8) * 255)
    values = [RED, GREEN, mask, 2]
    first, mode = pictures.read(["img2img_img2img_tab", *values])
    assert first is not None
    assert (first.pixels[0, 0].tolist(), first.mask, mode) == ([255, 0, 0], None, ResizeMode.resize_and_fill)
    second, _mode = pictures.read(["img2img_inpaint_upload_tab", *values])
    assert second is not None
    assert second.pixels[0, 0].tolist() == [0, 255, 0]
    assert np.array_equal(second.mask, np.asarray(mask))
    assert pictures.read(["img2img_batch_tab", *values])[0] is None
    assert pictures.read(["img2img_img2img_tab", None, GREEN, mask, 3]) == (None, ResizeMode.just_resize)


@pytest.mark.parametrize("form", ["image", "background"])
def test_drawn_masks_are_read_in_both_gradios(form: str) -> None:
    with gr.Blocks():
        gr.Image(elem_id="img2maskimg")
        pictures = host_pictures()
    assert pictures is not None
    drawn = np.zeros((8, 16, 4), np.uint8)
    drawn[:4] = 255
    value: Any = {"image": RED, "mask": Image.fromarray(drawn)}
    if form == "background":
        value = {"background": RED, "layers": [Image.fromarray(drawn)], "composite": RED}
    picture, _mode = pictures.read(["img2img_inpaint_tab", value])
    assert picture is not None
    assert picture.mask is not None
    assert picture.mask[:4].all()
    assert not picture.mask[4:].any()


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"image": None, "own_image": True}, SOURCE_LABEL),
        ({"image": GREEN, "own_image": True}, LABEL),
        ({"image": GREEN, "own_image": False}, SOURCE_LABEL),
    ],
)
def test_own_picture_wins_where_it_counts(fields: dict[str, Any], label: str) -> None:
    _blocks, pictures = host()
    source = pictures.read(["img2img_img2img_tab", RED, None, None, 0])
    given = {"merge_images": None, "batch_images": None, "resize_mode": "Crop and Resize", **fields}
    found, said = with_source(given, *source)
    assert said == label
    assert found["resize_mode"] == ("Just Resize" if label == SOURCE_LABEL else "Crop and Resize")
    assert with_source(given, None, ResizeMode.just_resize) == (given, LABEL)


def test_run_button_is_given_the_hosts_pictures(services: Services, script: Any) -> None:
    blocks, pictures = host(services, script)
    run = next(str(b._id) for b in blocks.blocks.values() if getattr(b, "elem_id", "") == RUN)
    events = [event for event in blocks.get_config_file()["dependencies"] if run in str(event["targets"])]
    own = {component._id for component in pictures.pictures.values()}
    (event,) = [event for event in events if own <= set(event["inputs"])]
    assert f"values.slice(0, {len(event['inputs'])})" in event["js"]


RUN = "img2img_controlnet_ControlNet-0_controlnet_trigger_preprocessor"
