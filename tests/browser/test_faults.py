"""What was once wrong on the page: each kind of it, as a user meets it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import DRAWING, ROOT, SHOTS, Panel, image_pixels, pixels


def standing(panel: Panel) -> Any:
    """What is said to be wrong in the unit that is open."""
    return panel.root.locator(".cnet-standing:visible").first


def test_a_types_own_preprocessor_stays_and_the_api_agrees(panel: Panel, server: str) -> None:
    """Without weights another kind of preprocessor once took its place, and ran over photographs."""
    with urllib.request.urlopen(f"{server}controlnet/control_types") as answer:
        types = json.load(answer)["control_types"]
    for kind in ("MLSD", "NormalMap", "Segmentation", "Revision"):
        panel.choose("controlnet_type_filter_radio", kind)
        assert panel.values()["controlnet_preprocessor_dropdown"] == types[kind]["default_option"]
        if kind == "Revision":
            panel.part("notes").locator(".cnet-bad", has_text="revision steers SDXL only, and checkpoint").wait_for()
            assert not panel.part("download_weights").is_visible()
        else:
            panel.part("notes").locator("p", has_text="lacks").wait_for()
            assert panel.part("download_weights").is_visible()
    panel.choose("controlnet_type_filter_radio", "Scribble")
    panel.part("notes").locator(
        "p", has_text='"scribble_xdog" finds a picture as a scribble too and is here'
    ).wait_for()


def test_a_map_sent_to_a_unit_is_not_processed_again(page: Any) -> None:
    """Compare sends it where a batch was open and a preprocessor chosen: both once stayed."""
    panel = Panel(page).open()
    panel.choose("controlnet_type_filter_radio", "Canny")
    panel.part("input_tabs").locator("button", has_text="Batch").click()
    panel.settle()
    page.locator("#tabs > .tab-nav button", has_text="ControlNet").click()
    page.locator("#controlnet_compare_image input[type=file]").set_input_files(str(DRAWING))
    page.locator("#controlnet_compare_image img").first.wait_for()
    page.traffic.settle()
    page.locator("#controlnet_compare_run").click()
    page.locator("#controlnet_compare_map_0 img").wait_for()
    sent = image_pixels(page, page.locator("#controlnet_compare_map_0 img").first)
    page.locator("#controlnet_compare_send_0").click()
    panel.part("input_image").locator("img").first.wait_for()
    panel.settle()
    assert panel.values()["controlnet_preprocessor_dropdown"] == "none"
    assert panel.part("controlnet_enable_checkbox").locator("input").is_checked()
    assert panel.part("input_image").is_visible(), "its tab is open"
    assert (pixels(panel, "input_image") == sent).all()
    panel.generate()
    assert "Module: none" in panel.infotext()
    assert "Input Mode" not in panel.infotext()


def test_an_error_stands_at_its_field_until_it_is_mended(canny: Panel) -> None:
    canny.select("controlnet_model_dropdown", "canny_of_another_kind")
    canny.generate()
    standing(canny).wait_for()
    assert "What to do:" in standing(canny).inner_text()
    assert "cnet-faulty" in canny.part("controlnet_model_dropdown").get_attribute("class")
    row = canny.root.locator(".controlnet_preprocessor_model").first.bounding_box()
    assert standing(canny).bounding_box()["width"] > row["width"] - 4, "as wide as its row, not as its field"
    canny.part("controlnet_model_dropdown").scroll_into_view_if_needed()
    result = canny.page.locator("#txt2img_gallery").bounding_box()
    assert 0 <= result["y"] < 1000 - result["height"], "the result stays in view beside the unit"
    canny.page.screenshot(path=SHOTS / "standing-error.png")
    canny.select("controlnet_model_dropdown", "demo_canny")
    standing(canny).wait_for(state="hidden")
    canny.part("controlnet_trigger_preprocessor").click()
    canny.part("generated_image").locator("img").first.wait_for()
    canny.part("input_image").locator('button[aria-label="Clear"], button[aria-label="Remove Image"]').first.click()
    canny.settle()
    assert canny.part("generated_image").locator("img").count() == 0, "the map of a picture that is gone"
    canny.part("controlnet_trigger_preprocessor").click()
    standing(canny).wait_for()
    assert "there is no picture to preprocess" in standing(canny).inner_text()
    assert canny.page.locator(".toast-body").count() == 0
    canny.part("controlnet_trigger_preprocessor").click()
    canny.settle()
    standing(canny).wait_for()  # the same again
    canny.upload(ROOT / "docs" / "demo.png")
    standing(canny).wait_for(state="hidden")


def test_a_map_follows_what_is_quick_and_the_rest_is_out_of_date(panel: Panel) -> None:
    canny = panel
    canny.upload(DRAWING)
    canny.select("controlnet_preprocessor_dropdown", "canny")
    canny.preview()
    canny.settle()
    before = pixels(canny, "generated_image")
    slider = canny.part("controlnet_threshold_A_slider").locator("input[type=range]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    canny.page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2)
    canny.page.mouse.down()
    canny.page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 2, steps=3)
    with canny.page.traffic.following(seconds=30):
        canny.page.mouse.up()
    group = canny.part("preview_group")
    assert "cnet-stale" not in (group.get_attribute("class") or "")
    assert float(canny.values()["controlnet_threshold_A_slider"]) < 10
    assert (pixels(canny, "generated_image") != before).any()
    canny.select("controlnet_preprocessor_dropdown", "softedge_pidinet")
    canny.page.locator(".cnet-stale").first.wait_for()
    canny.page.screenshot(path=SHOTS / "stale.png")
    canny.select("controlnet_preprocessor_dropdown", "canny")
    canny.page.wait_for_function("document.querySelectorAll('.cnet-stale').length === 0")


def test_reset_empties_everything_and_can_be_taken_back(canny: Panel) -> None:
    canny.preview()
    canny.part("controlnet_layer_weights_group").locator("> .label-wrap").click()
    canny.select("controlnet_layer_shape_dropdown", "Ease out")
    canny.part("controlnet_weight_schedule_group").locator("> .label-wrap").click()
    canny.select("controlnet_schedule_shape_dropdown", "Fade out")
    canny.number("threshold_A", 77)
    canny.settle()
    before, picture = canny.values(), pixels(canny, "input_image")
    canny.part("presets").locator("> .label-wrap").click()
    box = canny.part("preset_dropdown").locator("input")
    box.fill("answered")
    box.press("Enter")
    canny.part("preset_save").click()
    canny.part("preset_answer").locator("[role=status]", has_text='Saved as "answered"').wait_for()
    canny.part("preset_delete").click()
    canny.part("preset_answer").locator("[role=status]", has_text="is deleted").wait_for()
    canny.part("preset_reset").click()
    canny.part("preset_undo").wait_for()
    canny.settle()
    after = canny.values()
    assert canny.part("generated_image").locator("img").count() == 0
    assert canny.part("input_image").locator("img").count() == 0
    assert after["controlnet_layer_shape_dropdown"].startswith("Off")
    assert after["controlnet_schedule_shape_dropdown"].startswith("Off")
    canny.part("preset_undo").click()
    canny.part("input_image").locator("img").first.wait_for()
    canny.settle()
    again = canny.values()
    skipped = {"controlnet_type_filter_radio", "controlnet_layer_shape_dropdown", "controlnet_schedule_shape_dropdown"}
    assert {name: again[name] for name in before if name not in skipped and again[name] != before[name]} == {}
    assert (pixels(canny, "input_image") == picture).all()


def test_what_is_missing_is_said_before_generate(panel: Panel, tmp_path: Path) -> None:
    panel.check("enable")
    panel.part("notes").locator(".cnet-warn", has_text="has no model").wait_for()
    panel.part("controlnet_enable_checkbox").locator("input").uncheck()
    panel.settle()
    panel.part("input_tabs").locator("button", has_text="Batch").click()
    panel.part("batch_image_dir").locator("textarea").fill(str(tmp_path))
    panel.settle()
    assert panel.part("controlnet_enable_checkbox").locator("input").is_checked()


@pytest.mark.parametrize("page", [{"viewport": {"width": 1440, "height": 900}}], indirect=True)
def test_the_map_stands_beside_the_picture(canny: Panel) -> None:
    canny.preview()
    picture, shown = (canny.part(name).bounding_box() for name in ("input_image", "generated_image"))
    assert shown["x"] > picture["x"] + picture["width"] / 2
    assert abs(shown["y"] - picture["y"]) < 100


def test_the_tab_key_reaches_the_accordions(panel: Panel) -> None:
    head = panel.part("presets").locator("> .label-wrap")
    head.focus()
    panel.page.keyboard.press("Enter")
    panel.part("preset_save").wait_for()
    panel.part("presets").locator("> .label-wrap[aria-expanded=true]").wait_for()
    reached = panel.page.evaluate(
        "(id) => { const heads = [...document.querySelectorAll(`#${id} .label-wrap`)];"
        " return heads.length > 3 && heads.every((head) => head.tabIndex === 0); }",
        "txt2img_controlnet",
    )
    assert reached


def test_the_map_is_laid_over_the_result(canny: Panel) -> None:
    canny.preview()
    canny.generate()
    canny.part("overlay").click()
    canvas = canny.page.locator("dialog canvas")
    canvas.wait_for()
    read = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    covered = canvas.evaluate(read)
    edge = canny.page.locator("dialog input[type=range]").nth(1)
    edge.fill("0")
    bare = canvas.evaluate(read)
    assert covered != bare
    canny.page.locator("dialog input[type=range]").nth(0).fill("0")
    edge.fill("100")
    assert canvas.evaluate(read) == bare
    canny.page.screenshot(path=SHOTS / "overlay.png")
    canny.page.keyboard.press("Escape")
