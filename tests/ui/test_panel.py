"""The panel built by a real gradio: its arguments, events, preview, paste."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from lib_controlnet.core.arguments import FIELDS, FIRST_UNIT, SLOTS, units_from_args
from lib_controlnet.core.errors import HostError, PreprocessorError, UnitError
from lib_controlnet.core.infotext import format_unit
from lib_controlnet.core.modes import ControlMode, HiResOption, ResizeMode
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.engine.preprocess import Found, PreprocessResult
from lib_controlnet.engine.services import Services
from lib_controlnet.ui import events
from lib_controlnet.ui.panel import build
from lib_controlnet.ui.preview import run_preprocessor, shown_map

RGB = np.random.default_rng(3).integers(0, 256, (24, 40, 3), dtype=np.uint8)
CANNY = "control_v11p_sd15_canny"


class Page:
    """A built page: the script's components, and its events by the component and action that start them."""

    def __init__(self, services: Services, script: Any, tab: str = "txt2img") -> None:
        with gr.Blocks() as self.blocks:
            self.width = gr.Slider(64, 2048, 512, elem_id=f"{tab}_width")
            self.height = gr.Slider(64, 2048, 512, elem_id=f"{tab}_height")
            self.components = build(services, tab, tab == "img2img", script)
        self.script = script

    def values(self) -> list[Any]:
        return [component.value for component in self.components]

    def by_id(self, elem_id: str) -> Any:
        return next(block for block in self.blocks.blocks.values() if getattr(block, "elem_id", None) == elem_id)

    def unit(self, index: int = 0) -> dict[str, Any]:
        start = FIRST_UNIT + index * len(FIELDS)
        return dict(zip(FIELDS, self.components[start : start + len(FIELDS)], strict=True))


@pytest.fixture
def page(services: Services, script: Any) -> Page:
    return Page(services, script)


def test_arguments_are_slots_then_widgets(page: Page) -> None:
    assert len(page.components) == FIRST_UNIT + 3 * len(FIELDS)
    assert all(isinstance(component, gr.State) and component.value is None for component in page.components[:SLOTS])
    assert not any(isinstance(component, gr.State) for component in page.components[SLOTS:])


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_untouched_page_means_disabled_units(services: Services, script: Any, tab: str) -> None:
    units = units_from_args(Page(services, script, tab).values(), 3)
    assert [(unit.index, unit.enabled) for unit in units] == [(0, False), (1, False), (2, False)]


def test_untouched_enabled_unit_has_the_defaults(page: Page) -> None:
    values = page.values()
    values[FIRST_UNIT] = True
    unit = units_from_args(values, 3)[0]
    assert vars(unit) == vars(ControlNetUnit(enabled=True))


@pytest.mark.parametrize("count", [1, 3, 10])
def test_number_of_units_is_the_setting(services_with: Callable[..., Services], script: Any, count: int) -> None:
    page = Page(services_with(control_net_unit_count=float(count)), script)
    assert len(page.components) == FIRST_UNIT + count * len(FIELDS)
    assert len(units_from_args(page.values(), count)) == count


def test_panel_can_be_built_again_and_again(services: Services, script: Any) -> None:
    first = Page(services, script)
    fields = list(script.infotext_fields)
    with gr.Blocks():
        again = build(services, "txt2img", False, script)
    assert len(again) == len(first.components)
    own = {component._id for component in first.components}
    kept = {first.by_id(name.format(i))._id for name in (TYPE, *MADE_BEFORE) for i in range(3)}
    assert {component._id for component, _target in fields} <= own | kept


TYPE = "txt2img_controlnet_ControlNet-{}_controlnet_type_filter_radio"
MADE_BEFORE = tuple(
    f"txt2img_controlnet_ControlNet-{{}}_{name}"
    for name in ("pose_json", "made", "controlnet_layer_shape_dropdown", "controlnet_schedule_shape_dropdown")
)
"""What is emptied when other settings are put into a unit."""


@pytest.mark.parametrize(
    "name",
    [
        "input_image",
        "generated_image",
        "controlnet_enable_checkbox",
        "controlnet_low_vram_checkbox",
        "controlnet_pixel_perfect_checkbox",
        "controlnet_preprocessor_dropdown",
        "controlnet_trigger_preprocessor",
        "controlnet_model_dropdown",
        "controlnet_control_weight_slider",
        "controlnet_start_control_step_slider",
        "controlnet_ending_control_step_slider",
        "controlnet_preprocessor_resolution_slider",
        "controlnet_threshold_A_slider",
        "controlnet_threshold_B_slider",
        "controlnet_control_mode_radio",
        "controlnet_resize_mode_radio",
        "controlnet_hr_option_radio",
    ],
)
def test_ids_of_the_peers(page: Page, name: str) -> None:
    assert page.by_id(f"txt2img_controlnet_ControlNet-2_{name}") is not None


def test_changing_widgets_are_not_written_to_the_hosts_config(page: Page) -> None:
    for name in ("image", "mask", "region_mask", "preprocessor", "model", "resolution", "threshold_a", "threshold_b"):
        assert page.unit()[name].do_not_save_to_config is True


def test_ids_are_unique_but_for_the_accordion(page: Page) -> None:
    ids = [block.elem_id for block in page.blocks.blocks.values() if getattr(block, "elem_id", None)]
    assert len(ids) == len(set(ids))


# -- arguments -----------------------------------------------------------------------------------------------------


def widget_values(**fields: Any) -> list[Any]:
    defaults: dict[str, Any] = {
        "enabled": True,
        "own_image": True,
        "low_vram": False,
        "pixel_perfect": False,
        "crop_to_mask": True,
        "save_map": True,
        "preprocessor": "canny",
        "model": CANNY,
        "weight": 1.0,
        "guidance_start": 0.0,
        "guidance_end": 1.0,
        "resolution": 512,
        "threshold_a": 100,
        "threshold_b": 200,
        "control_mode": "Balanced",
        "resize_mode": "Crop and Resize",
        "hr_option": "Both",
        "use_region": True,
        "input_mode": "simple",
        "union_type": "Unknown",
    }
    return [{**defaults, **fields}.get(name) for name in FIELDS]


def test_widgets_are_read() -> None:
    picture = Image.fromarray(RGB)
    mask = Image.fromarray(RGB[..., 0] > 127)
    args = (
        [None] * FIRST_UNIT
        + widget_values()
        + widget_values(
            image=picture,
            mask=mask,
            region_mask=mask,
            control_mode="My prompt is more important",
            resize_mode="Resize and Fill",
            hr_option="High res only",
            weight=0.5,
            save_map=False,
        )
    )
    first, second = units_from_args(args, 2)
    assert (first.index, first.image, first.preprocessor, first.threshold_b) == (0, None, "canny", 200.0)
    assert np.array_equal(second.image, RGB)
    assert np.array_equal(second.mask, (RGB[..., 0] > 127) * 255)
    assert np.array_equal(second.region_mask, second.mask)
    assert (second.control_mode, second.resize_mode) == (ControlMode.prompt, ResizeMode.resize_and_fill)
    assert (second.hr_option, second.weight, second.save_map) == (HiResOption.high, 0.5, False)


def uploaded(component: Any, image: Image.Image, folder: Path) -> Any:
    """What a handler gets when a browser uploads the picture into the component, in either gradio."""
    path = folder / "upload.png"
    image.save(path)
    if gr.__version__.startswith("3."):
        return component.preprocess("data:image/png;base64," + base64.b64encode(path.read_bytes()).decode())
    from gradio.data_classes import FileData

    return component.preprocess(FileData(path=str(path), orig_name="upload.png"))


def test_uploads_keep_depth_and_transparency(page: Page, tmp_path: Path) -> None:
    component = page.unit()["image"]
    deep = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    see_through = Image.fromarray(np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8))
    for picture, expected in ((deep, [0, 1, 255]), (see_through, [255, 9])):
        values = widget_values(image=uploaded(component, picture, tmp_path))
        (unit,) = units_from_args([None] * FIRST_UNIT + values, 1)
        assert unit.image[0, :, 0].tolist() == expected


def test_img2img_picture_is_used_unless_the_unit_brings_its_own() -> None:
    values = widget_values(image=Image.fromarray(RGB), own_image=False)
    (unit,) = units_from_args([None] * FIRST_UNIT + values, 1)
    assert unit.image is None


def test_units_in_slots_win_over_widgets() -> None:
    args: list[Any] = [None] * FIRST_UNIT + widget_values()
    args[1] = {"enabled": True, "model": "own", "weight": 0.2}
    units = units_from_args(args, 3)
    assert [(unit.index, unit.model, unit.weight) for unit in units] == [(1, "own", 0.2)]


def test_units_of_another_extension_instead_of_all_arguments() -> None:
    units = units_from_args([ControlNetUnit(enabled=True, model="own"), {"enabled": False}, {}], 3)
    assert [(unit.index, unit.enabled) for unit in units] == [(0, True), (1, False), (2, False)]


def test_enabled_unit_beyond_the_count_is_refused() -> None:
    args: list[Any] = [{"enabled": False}] * 3 + [{"enabled": True, "model": "own"}]
    with pytest.raises(UnitError, match="more units than configured") as caught:
        units_from_args(args, 3)
    assert caught.value.unit == 3
    assert len(units_from_args([*args[:3], {"enabled": False}], 3)) == 3


def test_wrong_widget_value_names_its_unit() -> None:
    with pytest.raises(UnitError) as caught:
        units_from_args([None] * FIRST_UNIT + widget_values() + widget_values(guidance_start=0.9, guidance_end=0.1), 2)
    assert (caught.value.unit, caught.value.field) == (1, "guidance_start")


def test_stale_page_is_refused() -> None:
    with pytest.raises(HostError, match="reload the page"):
        units_from_args([None] * FIRST_UNIT + widget_values()[:-1], 3)


# -- events --------------------------------------------------------------------------------------------------------


def test_control_type_filters_and_picks_defaults(services: Services) -> None:
    preprocessor, resolution, low, high, mode, model, _absent = events.choose_type(services, "Canny", False)
    assert preprocessor["choices"] == ["none", "canny", "invert (from white bg & black line)"]
    assert preprocessor["value"] == "canny"
    assert (resolution["visible"], resolution["value"], resolution["maximum"]) == (True, 512, 2048)
    assert (low["label"], low["minimum"], low["maximum"], low["value"]) == ("Low Threshold", 1, 255, 100)
    assert (high["label"], high["value"], high["visible"]) == ("High Threshold", 200, True)
    assert mode["visible"] is True
    assert [name.split(" [")[0] for name in model["choices"]] == ["None", CANNY]
    assert model["value"] == "None"  # the files here are empty, and what cannot work is no default


def test_pixel_perfect_hides_the_resolution(services: Services) -> None:
    assert events.choose_preprocessor(services, "canny", True)[0]["visible"] is False


def test_preprocessor_without_settings_hides_all_and_asks_for_defaults(services: Services) -> None:
    *sliders, _mode, _model = events.choose_preprocessor(services, "invert", False)
    assert [(slider["visible"], slider["value"]) for slider in sliders] == [(False, -1)] * 3


def test_model_free_preprocessor_hides_the_model(services: Services) -> None:
    _res, fidelity, _b, mode, model = events.choose_preprocessor(services, "reference_only", False)
    assert fidelity["label"] == "Style Fidelity"
    assert mode["visible"] is False
    assert (model["visible"], model["value"]) == (False, "None")


def test_types_with_nothing_behind_are_not_offered(page: Page) -> None:
    radio = page.by_id(TYPE.format(0))
    names = [choice[0] if isinstance(choice, tuple) else choice for choice in radio.choices]
    assert names == ["All", "Canny", "Depth", "Inpaint", "OpenPose", "Reference", "Scribble", "T2I-Adapter"]


def test_refresh_finds_new_files_and_drops_lost_choices(services: Services, tmp_path: Any) -> None:
    services.library.names()
    source = next(tmp_path.glob(f"{CANNY}*"))
    (tmp_path / "new_canny.safetensors").write_bytes(source.read_bytes())
    update = events.refresh_models(services, "Canny", "gone [00000000]")
    assert any(name.startswith("new_canny") for name in update["choices"])
    assert update["value"] == "None"


def test_preview_is_the_preprocessors_map(services: Services) -> None:
    fields = dict(zip(FIELDS, widget_values(image=Image.fromarray(RGB), threshold_a=50, threshold_b=10), strict=True))
    result = shown_map(run_preprocessor(services, {**fields, "enabled": False, "own_image": False}, 0, (512, 512)))
    expected = (RGB.max(axis=2) > 50) * np.uint8(245)
    expected[0, 0] = 64
    assert np.array_equal(result[..., 0], expected)


def test_preview_of_an_embedding_is_what_it_was_found_in() -> None:
    spec: Any = SimpleNamespace(label="faces")
    found = PreprocessResult(Found(None, None, {}, RGB), spec, 512, ())
    assert shown_map(found) is RGB
    with pytest.raises(PreprocessorError, match="an embedding, not a map"):
        shown_map(PreprocessResult(Found(None, None, {}), spec, 512, ()))


@pytest.mark.parametrize(("page_size", "resolution"), [((640, 320), 384), ((80, 48), 48), ((4000, 2000), 2400)])
def test_preview_with_pixel_perfect_uses_the_pages_size(
    services: Services, page_size: tuple[int, int], resolution: int
) -> None:
    """Also beyond the slider's range: the number is computed, not asked for."""
    fields = dict(zip(FIELDS, widget_values(image=Image.fromarray(RGB), pixel_perfect=True), strict=True))
    result = shown_map(run_preprocessor(services, fields, 0, page_size))
    assert result[0, 0, 0] == resolution // 8 % 256


def test_preview_of_an_inpaint_map_shows_its_mask_half_transparent(services: Services) -> None:
    mask = np.zeros((24, 40), np.uint8)
    mask[:12] = 255
    values = widget_values(image=Image.fromarray(RGB), mask=Image.fromarray(mask), preprocessor="inpaint")
    result = shown_map(run_preprocessor(services, dict(zip(FIELDS, values, strict=True)), 0, (512, 512)))
    assert result[0, 0, 3] == 128
    assert result[23, 0, 3] == 255


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "no picture"),
        ({"image": Image.fromarray(RGB), "preprocessor": "cany"}, "canny"),
        ({"image": Image.fromarray(RGB), "preprocessor": "broken"}, "the net is broken"),
        ({"image": Image.fromarray(RGB), "mask": Image.fromarray(RGB[:4])}, "size"),
    ],
)
def test_mistakes_are_shown_on_the_page(services: Services, fields: dict[str, Any], words: str) -> None:
    named = dict(zip(FIELDS, widget_values(**fields), strict=True))
    shown = events.shown_errors(lambda: run_preprocessor(services, named, 2, (512, 512)), 2)
    with pytest.raises(gr.Error) as caught:
        shown()
    message = str(getattr(caught.value, "message", caught.value))
    assert message.startswith("ControlNet unit 2")
    assert words in message


@pytest.mark.parametrize(("size", "sent"), [((512, 768), (512, 768)), ((12, 13), (8, 16)), ((11, 20), (8, 16))])
def test_size_is_sent_in_multiples_of_8_as_the_peers(size: tuple[int, int], sent: tuple[int, int]) -> None:
    assert events.picture_size(Image.new("RGB", size)) == sent


def test_every_event_targets_components_of_the_page(page: Page) -> None:
    config = page.blocks.get_config_file()
    known = {component["id"] for component in config["components"]}
    assert len(config["dependencies"]) >= 3 * 8
    for dependency in config["dependencies"]:
        assert set(dependency["inputs"]) | set(dependency["outputs"]) <= known
    json.dumps(config, default=str)


# -- paste ---------------------------------------------------------------------------------------------------------


def pasted(page: Page, params: dict[str, str]) -> dict[int, Any]:
    """Component id -> what the host would apply."""
    return {component._id: target(params) for component, target in page.script.infotext_fields}


def test_each_unit_is_pasted_to_its_index(page: Page) -> None:
    unit = ControlNetUnit(
        preprocessor="canny",
        model=CANNY,
        weight=0.6,
        resolution=640,
        threshold_a=50.0,
        threshold_b=150.0,
        guidance_start=0.1,
        guidance_end=0.9,
        control_mode=ControlMode.control,
        resize_mode=ResizeMode.just_resize,
        hr_option=HiResOption.low,
        crop_to_mask=False,
    )
    result = pasted(page, {"Steps": "20", "ControlNet 1": format_unit(unit)})
    first, second = page.unit(0), page.unit(1)
    assert result[first["enabled"]._id] is False
    assert result[first["weight"]._id] is None
    assert result[second["enabled"]._id] is True
    assert result[second["weight"]._id] == 0.6
    assert result[second["preprocessor"]._id]["value"] == "canny"
    assert result[second["model"]._id]["value"].startswith(f"{CANNY} [")
    sliders = [result[second[name]._id] for name in ("resolution", "threshold_a", "threshold_b")]
    assert [slider["value"] for slider in sliders] == [640, 50.0, 150.0]
    assert sliders[1]["label"] == "Low Threshold"
    assert result[second["control_mode"]._id] == "ControlNet is more important"
    assert result[second["resize_mode"]._id] == "Just Resize"
    assert result[second["hr_option"]._id] == "Low res only"
    assert result[second["crop_to_mask"]._id] is False
    assert result[second["guidance_end"]._id] == 0.9


def test_text_without_control_leaves_the_panel_alone(page: Page) -> None:
    assert set(pasted(page, {"Steps": "20", "Sampler": "Euler a"}).values()) == {None}


def test_model_that_is_not_here_is_shown_and_not_replaced(page: Page) -> None:
    text = format_unit(ControlNetUnit(preprocessor="canny", model="elsewhere [12345678]"))
    update = pasted(page, {"ControlNet 0": text})[page.unit()["model"]._id]
    assert update["value"] == "elsewhere [12345678]"
    assert update["value"] in update["choices"]


def test_paste_can_be_switched_off(services_with: Callable[..., Services], script: Any) -> None:
    page = Page(services_with(control_net_sync_field_args=False), script)
    assert page.script.infotext_fields == []


def test_names_for_the_host_are_the_peers(page: Page) -> None:
    assert {"ControlNet 0", "ControlNet 2 Module", "ControlNet 1 Control Mode"} <= set(page.script.paste_field_names)
