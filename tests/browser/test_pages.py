"""What reaches beyond one click of the panel: files, poses, img2img, the tab's pages, a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.browser.conftest import DRAWING, OTHER, ROOT, SHOTS, Panel, image_pixels, pixels
from tests.browser.stage import SLOW
from tests.training.tiny import make_pairs


def open_page(page: Any, name: str) -> None:
    """A page of the tab ControlNet."""
    page.locator("#tabs > .tab-nav button", has_text="ControlNet").click()
    page.locator("#controlnet_pages button", has_text=name).first.click()


def test_preset_is_exported_and_imported(canny: Panel) -> None:
    canny.number("control_weight", 0.35)
    canny.number("threshold_A", 77)
    canny.settle()
    canny.part("presets").locator("> .label-wrap").click()
    canny.part("preset_export").click()
    link = canny.part("preset_file").locator("a").first
    link.wait_for()
    text = canny.page.request.get(link.get_attribute("href")).text()
    assert json.loads(text)["unit"]["weight"] == "0.35"
    canny.part("preset_reset").click()
    canny.settle()
    assert float(canny.values()["controlnet_control_weight_slider"]) == 1
    content = {"name": "controlnet-preset.json", "mimeType": "application/json", "buffer": text.encode()}
    with canny.page.expect_file_chooser() as chooser:
        canny.part("preset_import").click()
    chooser.value.set_files(files=[content])
    canny.settle()
    values = canny.values()
    assert float(values["controlnet_control_weight_slider"]) == 0.35
    assert float(values["controlnet_threshold_A_slider"]) == 77
    assert values["controlnet_model_dropdown"].startswith("demo_canny")


def test_caption_needs_an_interrogator_and_says_so(canny: Panel) -> None:
    """The embedded WebUI has none; others write into the box, if they find its weights."""
    canny.page.locator("#txt2img_controlnet_options > .label-wrap").click()
    canny.page.locator("#txt2img_controlnet_write_caption").click()
    assert ("interrogator failed" if OTHER else "has no interrogator") in canny.error()


def test_preprocessor_is_stopped(panel: Panel) -> None:
    panel.upload(DRAWING)
    panel.select("controlnet_preprocessor_dropdown", SLOW)
    panel.number("preprocessor_resolution", 2048)
    panel.settle()
    panel.part("controlnet_trigger_preprocessor").click()
    toast = panel.page.locator(".toast-body").first
    for _attempt in range(60):  # before it runs there is nothing to stop
        panel.part("cancel_preprocessor").click()
        panel.page.wait_for_timeout(250)
        if toast.count():
            break
    assert "was stopped" in panel.error()
    assert panel.part("generated_image").locator("img").count() == 0


def drag_joint(panel: Panel, joint: int, by: int) -> None:
    page = panel.page
    panel.part("edit_pose").click()
    box = page.locator(f'dialog circle[data-joint="0-pose_keypoints_2d-{joint}"]').bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - by, y - by, steps=4)
    page.mouse.up()
    page.locator("dialog button", has_text="Save").click()
    panel.settle()


def test_generation_uses_the_edited_pose(panel: Panel) -> None:
    """Two jobs with one joint moved between them: their maps differ where the joint was and is."""
    panel.choose("controlnet_type_filter_radio", "OpenPose")
    panel.select("controlnet_preprocessor_dropdown", "none")
    panel.part("pose_group").locator("> .label-wrap").click()
    maps = []
    for by in (0, 90):
        drag_joint(panel, 4, by)
        if not maps:
            panel.choose("controlnet_type_filter_radio", "All")
            panel.select("controlnet_model_dropdown", "demo_scribble")
        shown = panel.generate()
        assert panel.job_error().startswith("Time taken")
        assert shown >= 2
        maps.append(image_pixels(panel.page, panel.page.locator("#txt2img_gallery img").last))
    assert (maps[0] > 0).any()
    assert 0.0005 < (maps[0] != maps[1]).any(axis=2).mean() < 0.3


EDITOR = """<script>
    window.parent.postMessage({ready: true}, "*");
    window.addEventListener("message", ({data}) => {
        const pose = JSON.parse(atob(data.poseURL.split(",")[1]));
        pose.people = [{pose_keypoints_2d: [32, 16, 1, 32, 40, 1].concat(Array(48).fill(0))}];
        Object.assign(pose, {canvas_width: 64, canvas_height: 64});
        const poseURL = "data:application/json;base64," + btoa(JSON.stringify(pose));
        window.parent.postMessage({modalId: data.modalId, poseURL}, "*");
    });
</script>"""


def test_external_editor_is_used_where_it_is_installed(panel: Panel) -> None:
    """Its page is played here, with the messages of sd-webui-openpose-editor."""
    panel.page.route("**/openpose_editor_index/**", lambda route: route.fulfill(content_type="text/html", body=EDITOR))
    panel.choose("controlnet_type_filter_radio", "OpenPose")
    panel.part("pose_group").locator("> .label-wrap").click()
    assert "cnet-own-pose" in panel.part("edit_pose").get_attribute("class")
    panel.part("edit_pose").evaluate("button => button.classList.add('cnet-external-pose')")
    panel.part("edit_pose").click()
    panel.part("generated_image").locator("img").first.wait_for()
    panel.settle()
    pose = json.loads(panel.part("pose_json").locator("textarea").input_value())
    assert pose["people"][0]["pose_keypoints_2d"][:3] == [32, 16, 1]
    assert pixels(panel, "generated_image").shape == (64, 64, 3)
    assert panel.page.locator("dialog").count() == 0


def test_img2img_unit_without_a_picture_previews_the_tabs(page: Any) -> None:
    page.locator("#tabs > .tab-nav button", has_text="img2img").click()
    page.locator("#img2img_image input[type=file]").first.set_input_files(str(DRAWING))
    page.locator("#img2img_image img").first.wait_for()
    panel = Panel(page, "img2img").open()
    panel.choose("controlnet_type_filter_radio", "Canny")
    panel.preview()
    assert "of the whole img2img picture" in panel.part("generated_image").inner_text()
    assert 0.001 < (pixels(panel, "generated_image") > 127).mean() < 0.1


def test_path_of_a_model_can_be_copied(page: Any) -> None:
    open_page(page, "Models")
    page.locator("#controlnet_models_table table").first.wait_for()
    page.traffic.settle()
    page.locator("#controlnet_models_choice input").click()
    page.locator("ul.options li", has_text="demo_seg").first.click()
    page.traffic.settle()
    shown = page.locator("#controlnet_models_path textarea").input_value()
    assert Path(shown).samefile(ROOT / "models" / "demo" / "controlnet" / "demo_seg.safetensors")


def fill(page: Any, name: str, value: str) -> None:
    field = page.locator(f"#controlnet_train_{name}").locator("textarea, input").first
    field.fill(value)
    field.blur()


def test_training_is_started_and_its_curve_follows(page: Any, tmp_path: Path) -> None:
    """A tiny training from the page: its script asks for the figures, nobody clicks Refresh."""
    page.locator("#tabs > .tab-nav button", has_text="Settings").click()
    page.locator("#settings button", has_text="ControlNet").first.click()
    page.locator("#setting_controlnet_allow_training input").check()
    page.locator("#settings_submit").click()
    page.traffic.settle()
    open_page(page, "Train")
    make_pairs(tmp_path / "pairs")
    chosen = {"folder": tmp_path / "pairs", "name": "page_made", "out": tmp_path / "out", "resolution": 64, "steps": 30,
              "batch": 2, "rate": 0.0001, "every": 15, "held_out": 2}  # fmt: skip
    for name, value in chosen.items():
        fill(page, name, str(value))
    page.get_by_label("Mixed precision").click()
    page.locator("ul.options li", has_text="no").first.click()
    page.traffic.settle()
    page.locator("#controlnet_train_start").click()
    state = page.locator("#controlnet_train_state p[data-state]").first
    state.wait_for(timeout=60_000)
    seen = set()
    for _second in range(150):
        seen.add(state.get_attribute("data-seen"))
        if state.get_attribute("data-state") != "running":
            break
        page.wait_for_timeout(1000)
    assert state.get_attribute("data-state") == "finished", page.locator("#controlnet_train_state").first.inner_text()
    assert len(seen) > 2, "the page asked by itself"
    assert page.locator("#controlnet_train_state svg polyline").count() >= 1
    assert "step 30 of 30" in state.inner_text()
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / "train.png", full_page=True)
    page.locator("#controlnet_train_use").click()
    page.traffic.settle()
    assert Panel(page).values()["controlnet_model_dropdown"].startswith("page_made")
