"""The panel as a user meets it, in Chromium against the embedded WebUI."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import DRAWING, ROOT, SHOTS, Pages, Panel, pixels, serious_faults


def test_uploading_enables_and_the_header_says_what_is_on(canny: Panel) -> None:
    assert canny.part("controlnet_enable_checkbox").locator("input").is_checked()
    header = canny.page.locator("#txt2img_controlnet_tabs > .tab-nav > button").first
    header.locator(".cnet-tab-facts", has_text="canny · 1").wait_for()
    assert header.locator("img.cnet-thumb").count() == 1
    assert canny.root.locator(".cnet-badge").inner_text() == "1 unit"


def test_control_type_chooses_what_belongs_together(canny: Panel) -> None:
    values = canny.values()
    assert values["controlnet_preprocessor_dropdown"] == "canny"
    assert values["controlnet_model_dropdown"].startswith("demo_canny")
    assert float(values["controlnet_threshold_B_slider"]) == 200
    canny.part("notes").locator("p", has_text="Fits demo").wait_for()


def test_mismatch_is_said_before_and_stops_the_job(canny: Panel) -> None:
    canny.select("controlnet_model_dropdown", "canny_of_another_kind")
    canny.part("notes").locator(".cnet-bad").wait_for()
    assert "does not work with demo" in canny.part("notes").inner_text()
    canny.generate()
    assert "ControlNet unit 0, model" in canny.job_error()


def test_missing_weights_are_said_with_size_and_button(panel: Panel) -> None:
    panel.choose("controlnet_type_filter_radio", "Depth")
    panel.part("download_weights").wait_for()
    panel.part("notes").locator("p", has_text=re.compile(r"lacks .* \(\d")).wait_for()
    assert panel.part("download_weights").inner_text().startswith("Download ")


def test_preview_shows_the_map_and_can_be_the_picture(canny: Panel) -> None:
    canny.preview()
    shown = pixels(canny, "generated_image")
    assert 0.001 < (shown > 127).mean() < 0.1
    canny.check("preview_as_input")
    assert canny.generate() >= 1
    assert "Module: none" in canny.infotext()


def test_what_is_wrong_is_shown_on_the_page(panel: Panel) -> None:
    panel.choose("controlnet_type_filter_radio", "Canny")
    panel.part("controlnet_trigger_preprocessor").click()
    assert "there is no picture to preprocess" in panel.error()


def test_size_of_the_picture_is_sent(panel: Panel) -> None:
    panel.upload(DRAWING)
    panel.part("controlnet_send_dimensions").click()
    panel.settle()
    size = [panel.page.locator(f"#txt2img_{side} input[type=number]").input_value() for side in ("width", "height")]
    assert size == ["384", "384"]


def test_result_of_the_gallery_is_taken(canny: Panel) -> None:
    canny.generate()
    before = pixels(canny, "input_image").shape
    canny.part("take_result").click()
    canny.settle()
    assert pixels(canny, "input_image").shape == (128, 128, 3) != before


def test_layer_weights_are_shaped_dragged_and_used(canny: Panel) -> None:
    canny.part("controlnet_layer_weights_group").locator("> .label-wrap").click()
    canny.select("controlnet_layer_shape_dropdown", "Ease out")
    field = canny.part("controlnet_advanced_weighting").locator("textarea")
    assert field.input_value().split(", ")[-1] == "1"
    bar = canny.part("controlnet_layer_plot").locator("rect").nth(2)
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()
    canny.page.mouse.move(box["x"] + 5, box["y"] + 2)
    canny.page.mouse.down()
    canny.page.mouse.move(box["x"] + 5, box["y"] - 15, steps=3)
    canny.page.mouse.up()
    canny.settle()
    weights = field.input_value()
    assert float(weights.split(", ")[2]) > 0.367
    canny.generate()
    assert "Layer Weights: " + weights.replace(", ", "/") in canny.infotext()


def test_two_units_and_region_mask(canny: Panel, tmp_path: Path) -> None:
    half = np.zeros((128, 128), np.uint8)
    half[:, :64] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    canny.check("effective_region_mask")
    canny.upload(tmp_path / "half.png", "effective_region_mask")
    canny.choose_unit(1)
    canny.upload(DRAWING, unit=1)
    canny.choose("controlnet_type_filter_radio", "Canny", 1)
    canny.generate()
    assert canny.job_error().startswith("Time taken")
    assert "ControlNet 0" in canny.infotext()
    assert "ControlNet 1" in canny.infotext()
    assert canny.root.locator(".cnet-badge").inner_text() == "2 units"


def change_everything(panel: Panel, unit: int = 0) -> None:
    """Every setting of a unit away from its default."""
    panel.number("control_weight", 0.65, unit)
    panel.number("start_control_step", 0.1, unit)
    panel.number("ending_control_step", 0.8, unit)
    panel.number("preprocessor_resolution", 640, unit)
    panel.number("threshold_A", 90, unit)
    panel.number("threshold_B", 180, unit)
    panel.check("low_vram", unit)
    panel.part("controlnet_save_detected_map_checkbox", unit).locator("input").uncheck()
    panel.choose("controlnet_control_mode_radio", "My prompt is more important", unit)
    panel.choose("controlnet_resize_mode_radio", "Resize and Fill", unit)


def test_infotext_brings_every_field_back(canny: Panel) -> None:
    change_everything(canny)
    canny.generate()
    text, before = canny.infotext(), canny.values()
    canny.part("presets").locator("> .label-wrap").click()
    canny.part("preset_reset").click()
    canny.settle()
    assert canny.values() != before
    canny.page.locator("#txt2img_prompt textarea").fill(text)
    canny.settle()
    canny.page.locator("#paste").first.click()
    canny.settle()
    after = canny.values()
    skipped = {
        "controlnet_type_filter_radio",
        "controlnet_preprocessor_preview_checkbox",
        "controlnet_layer_shape_dropdown",
    }
    differing = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert {name: pair for name, pair in differing.items() if name not in skipped} == {}


def test_presets_are_saved_loaded_and_deleted(canny: Panel) -> None:
    change_everything(canny)
    canny.settle()
    canny.part("presets").locator("> .label-wrap").click()
    before = canny.values()
    box = canny.part("preset_dropdown").locator("input")
    box.fill("from the browser test")
    box.press("Enter")
    canny.part("preset_save").click()
    canny.settle()
    canny.part("preset_reset").click()
    canny.settle()
    canny.part("preset_load").click()
    canny.settle()
    after = canny.values()
    for name in ("controlnet_control_weight_slider", "controlnet_threshold_A_slider", "controlnet_model_dropdown"):
        assert after[name] == before[name]
    canny.part("preset_delete").click()
    canny.settle()
    assert not list((ROOT / "presets").glob("from the browser test*"))


def test_unit_is_copied_with_its_picture(canny: Panel) -> None:
    canny.number("control_weight", 0.4)
    canny.choose_unit(1)
    canny.part("presets", 1).locator("> .label-wrap").click()
    canny.part("copy_unit", 1).click()
    canny.part("input_image", 1).locator("img").first.wait_for()
    values = canny.values(1)
    assert float(values["controlnet_control_weight_slider"]) == 0.4
    assert values["controlnet_model_dropdown"].startswith("demo_canny")


def test_batch_of_uploaded_pictures_and_of_a_folder(canny: Panel, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name, shift in (("first", 0), ("second", 40)):
        Image.fromarray(np.roll(np.asarray(Image.open(DRAWING).convert("RGB")), shift, 1)).save(source / f"{name}.png")
    canny.part("input_tabs").locator("button", has_text="Batch").click()
    canny.part("batch_image_dir").locator("textarea").fill(str(source))
    canny.part("batch_output_dir").locator("textarea").fill(str(target))
    canny.generate()
    assert sorted(path.name for path in target.iterdir()) == ["first.png", "second.png"]
    assert "2 pictures are in" in canny.job_error()


def test_pictures_that_act_together(canny: Panel) -> None:
    canny.part("input_tabs").locator("button", has_text="Multi-Inputs").click()
    with canny.page.traffic.following(seconds=60):
        canny.part("merge_input").locator("input[type=file]").set_input_files(
            [str(DRAWING), str(ROOT / "docs" / "demo.png")]
        )
    canny.generate()
    assert "Input Mode: merge" in canny.infotext()


def test_default_prompt_of_the_paper(canny: Panel) -> None:
    canny.page.locator("#txt2img_controlnet_options > .label-wrap").click()
    canny.page.locator("#txt2img_controlnet_prompt_mode input").click()
    canny.page.locator("ul.options li", has_text="Default prompt if empty").first.click()
    canny.generate("")
    assert canny.infotext().startswith("a professional, detailed, high-quality image")


def test_compare_and_send(page: Any) -> None:
    page.locator("#tabs > .tab-nav button", has_text="ControlNet").click()
    page.locator("#controlnet_compare_image input[type=file]").set_input_files(str(DRAWING))
    page.locator("#controlnet_compare_image img").first.wait_for()
    page.traffic.settle()
    page.locator("#controlnet_compare_run").click()
    page.locator("#controlnet_compare_map_2 img").wait_for()
    page.locator("#controlnet_compare_send_1").click()
    panel = Panel(page)
    panel.part("input_image").locator("img").first.wait_for()
    panel.settle()
    assert panel.part("controlnet_enable_checkbox").locator("input").is_checked()


def test_models_are_listed_with_what_fits(page: Any) -> None:
    page.locator("#tabs > .tab-nav button", has_text="ControlNet").click()
    page.locator("#controlnet_pages button", has_text="Models").click()
    page.locator("#controlnet_models_refresh").click()
    page.locator("#controlnet_models_table table").wait_for()
    text = page.locator("#controlnet_models_table").first.inner_text()
    assert re.search(r"demo_canny.*works", text)
    assert "canny_of_another_kind" in text
    assert "it was made for" in text


@pytest.mark.parametrize(
    "page",
    [
        {"theme": "light"},
        {"theme": "dark"},
        {"theme": "light", "viewport": {"width": 380, "height": 800}},
    ],
    indirect=True,
    ids=["desktop-light", "desktop-dark", "phone"],
)
def test_looks(page: Any, request: pytest.FixtureRequest) -> None:
    """The panel is as wide as the page, whatever that is; its screenshots are for people."""
    panel = Panel(page).open()
    panel.upload(DRAWING)
    panel.choose("controlnet_type_filter_radio", "Canny")
    panel.preview()
    SHOTS.mkdir(exist_ok=True)
    panel.root.screenshot(path=SHOTS / f"panel-{request.node.callspec.id}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_idle_page_runs_no_script_of_ours(canny: Panel) -> None:
    """No timer, no observer that feeds itself: five seconds without a call into the panel."""
    page = canny.page
    canny.part("notes").locator(".cnet-good").wait_for()
    canny.settle()
    page.wait_for_timeout(1000)
    page.evaluate(
        """() => { window.frames_asked = 0; const original = window.requestAnimationFrame;
        window.requestAnimationFrame = (call) => {
            if (new Error().stack.includes("/javascript/controlnet")) window.frames_asked += 1;
            return original(call); }; }"""
    )
    page.wait_for_timeout(5000)
    assert page.evaluate("window.frames_asked") == 0


def test_another_checkpoint_is_judged_at_once(canny: Panel) -> None:
    """The note follows the host's own event, without a click into the panel."""
    page = canny.page
    canny.part("notes").locator(".cnet-good").wait_for()
    change = """(title) => { opts = {...opts, sd_model_checkpoint: title};
        (globalThis.executeCallbacks ?? runCallbacks)(optionsChangedCallbacks); }"""  # A1111's name, and ours
    canny.settle()
    with page.expect_request(lambda request: "run/predict" in request.url or "queue/join" in request.url):
        page.evaluate(change, "another")
    canny.part("notes").locator(".cnet-good").wait_for()


def test_reload_keeps_the_panel_working(canny: Panel, pages: Pages) -> None:
    page = canny.page
    pages.forget()
    page.locator("#tabs > .tab-nav button", has_text="Settings").click()
    with page.expect_event("load", timeout=120_000):  # the page reloads itself once the server is back
        page.locator("#settings_restart_gradio").click()
    page.locator("#txt2img_controlnet #controlnet > .label-wrap").wait_for(timeout=90_000)
    page.problems.clear()  # while the server was away, the host's script could not reach it
    again = Panel(page).open()
    again.upload(DRAWING)
    again.choose("controlnet_type_filter_radio", "Canny")
    assert again.generate() >= 1
    assert again.root.locator(".cnet-badge").inner_text() == "1 unit"


def test_dragged_joint_moves_in_the_map_and_is_used(panel: Panel) -> None:
    page = panel.page
    panel.choose("controlnet_type_filter_radio", "OpenPose")
    panel.part("pose_group").locator("> .label-wrap").click()
    maps = []
    for right in (0, 90):
        panel.part("edit_pose").click()
        joint = page.locator('dialog circle[data-joint="0-pose_keypoints_2d-4"]')
        box = joint.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - right, y - right, steps=4)
        page.mouse.up()
        page.screenshot(path=SHOTS / "pose-editor.png")
        page.locator("dialog button", has_text="Save").click()
        panel.settle()
        maps.append(pixels(panel, "generated_image"))
    assert maps[0].shape == maps[1].shape
    assert (maps[0] > 0).any()
    assert 0.001 < (maps[0] != maps[1]).mean() < 0.2
    assert panel.part("controlnet_preview_as_input_checkbox").locator("input").is_checked()
    panel.select("controlnet_model_dropdown", "None")


def test_axe_finds_no_serious_fault_in_the_panel(canny: Panel) -> None:
    """axe-core 4 over the whole panel, with the widgets of gradio that are in it."""
    canny.preview()
    for group in ("controlnet_layer_weights_group", "presets"):
        canny.part(group).locator("> .label-wrap").click()
    canny.settle()
    assert serious_faults(canny.page, "#txt2img_controlnet") == ""


def test_a_weight_curve_is_chosen_drawn_and_used(canny: Panel) -> None:
    page = canny.page
    canny.part("controlnet_weight_schedule_group").locator("> .label-wrap").click()
    canny.select("controlnet_schedule_shape_dropdown", "Fade out")
    field = canny.part("controlnet_weight_schedule").locator("textarea, input")
    plot = canny.part("controlnet_weight_schedule_plot")

    def points(count: int) -> list[str]:
        """Of the text, as soon as the server has drawn so many."""
        found = plot.locator("circle[role=button]")
        for _ in range(200):
            if found.count() == count:
                break
            page.wait_for_timeout(50)
        canny.settle()
        assert found.count() == count
        return field.input_value().split("/")

    assert points(2) == ["0=1", "1=0"]
    plot.locator("svg").scroll_into_view_if_needed()
    box = plot.locator("svg").bounding_box()

    def at(progress: float, weight: float) -> tuple[float, float]:
        x, y = 14 + 276 * progress, 6 + 80 * (1 - weight / 2)
        return box["x"] + x * box["width"] / 300, box["y"] + y * box["height"] / 96

    page.mouse.move(*at(0.5, 1.0))
    page.mouse.down()
    page.mouse.move(*at(0.6, 1.5), steps=4)
    page.mouse.up()
    progress, weight = (float(part) for part in points(3)[1].split("="))
    assert (progress, weight) == (pytest.approx(0.6, abs=0.02), 1.5)
    page.screenshot(path=SHOTS / "weight_curve.png")
    plot.locator("circle").nth(1).press("ArrowDown")
    plot.locator("circle[aria-label$='weight 1.45']").wait_for()
    plot.locator("circle").nth(2).press("Delete")
    left = "/".join(points(2))
    assert left.endswith("=1.45")
    canny.page.locator("#txt2img_controlnet_tabs .cnet-tab-facts", has_text="canny · curve").wait_for()
    canny.generate()
    assert "Weight Schedule: " + left in canny.infotext()


def test_what_is_wrong_with_a_curve_is_said_beside_it(canny: Panel) -> None:
    canny.part("controlnet_weight_schedule_group").locator("> .label-wrap").click()
    field = canny.part("controlnet_weight_schedule").locator("textarea, input")
    field.fill("0.5=1/0.2=1")
    field.blur()
    canny.part("controlnet_weight_schedule_plot").locator(
        ".cnet-bad", has_text="not in order: 0.2 after 0.5"
    ).wait_for()
    canny.generate()
    assert "ControlNet unit 0, weight_schedule" in canny.job_error()


def test_options_of_an_image_prompt_are_shown_for_its_models_alone(canny: Panel) -> None:
    part = canny.part("controlnet_image_prompt_group")
    assert not part.is_visible()
    canny.choose("controlnet_type_filter_radio", "All")
    canny.select("controlnet_model_dropdown", "ip_adapter_of_random")
    part.wait_for()
    plot = canny.part("controlnet_ip_weight_plot")
    assert plot.locator("rect").count() == 16
    canny.select("controlnet_ip_weight_type_dropdown", "style and composition")
    plot.locator("svg[aria-label*='0.25']").wait_for()
    heights = [float(bar.get_attribute("height")) for bar in plot.locator("rect").all()]
    assert [height > 1 for height in heights] == [*[True] * 6, *[False] * 3, *[True] * 7]
    assert not canny.part("controlnet_pulid_mode_radio").is_visible()
    part.scroll_into_view_if_needed()
    canny.page.screenshot(path=SHOTS / "image_prompt.png")
    canny.select("controlnet_model_dropdown", "demo_canny")
    part.wait_for(state="hidden")
