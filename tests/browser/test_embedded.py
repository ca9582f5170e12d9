"""The embedded WebUI's own page: the first picture with the demo model, and what people expect of such a page."""

from __future__ import annotations

import io
import os
import re
import time
from typing import Any

import gradio
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from standalone.demo.metrics import edge_score, edges
from tests.browser.conftest import DRAWING, OTHER, ROOT, SHOTS, Panel, image_pixels, serious_faults

pytestmark = pytest.mark.skipif(OTHER is not None, reason="the page of CONTROLNET_TEST_WEBUI is another one")
GRADIO_3 = gradio.__version__.startswith("3.")
COUNT_CLICKS = "window.clicks = 0; addEventListener('pointerdown', () => window.clicks++, true)"


def press_generate(page: Any, tab: str = "txt2img") -> str:
    """Waits for the job to end; what is said below the pictures."""
    with page.traffic.following(seconds=120):
        page.locator(f"#{tab}_generate").click()
    page.locator(f"#html_log_{tab} .time").first.wait_for()
    page.locator("body:not(.generating)").wait_for()
    log, until = page.locator(f"#html_log_{tab}").first, time.monotonic() + 60
    while re.match(r"[\d.]+s\b", text := str(log.inner_text())):  # gradio's own clock, over what was there before
        assert time.monotonic() < until, text
        page.wait_for_timeout(50)
    return text


def pictures(page: Any) -> list[np.ndarray]:
    """What the gallery of txt2img shows: the result first, its map last."""
    thumbs = page.locator("#txt2img_gallery .thumbnails > .thumbnail-item img")
    if not thumbs.count():  # gradio 4 shows a grid where nothing was shown before
        thumbs = page.locator("#txt2img_gallery .grid-wrap .thumbnail-item img")
    return [image_pixels(page, thumbs.nth(i)) for i in range(thumbs.count())]


def shot(page: Any, part: str) -> Image.Image:
    """What a part of the page looks like."""
    return Image.open(io.BytesIO(page.locator(part).first.screenshot())).convert("RGB")


def side_by_side(steps: list[Image.Image], *texts: str) -> None:
    """The steps with their texts in one picture; with REMAKE_DOCS set it is the one of README.md."""
    height, gap = 260, 12
    small = [step.resize((round(step.width * height / step.height), height)) for step in steps[1:]]
    width = sum(step.width + gap for step in small) - gap
    first = steps[0].resize((width, round(steps[0].height * width / steps[0].width)))
    sheet = Image.new("RGB", (width, first.height + height + 72), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    pen.text((4, 4), texts[0], "black", font)
    sheet.paste(first, (0, 32))
    left, top = 0, first.height + 40
    for step, text in zip(small, texts[1:], strict=True):
        pen.text((left + 4, top), text, "black", font)
        sheet.paste(step, (left, top + 28))
        left += step.width + gap
    folder = ROOT / "docs" if os.environ.get("REMAKE_DOCS") else SHOTS
    SHOTS.mkdir(exist_ok=True)
    sheet.quantize(128).save(folder / "steps.png", optimize=True)


@pytest.mark.parametrize("page", [{"first_run": True}], indirect=True)
def test_first_run_leads_to_an_own_controlled_picture(page: Any) -> None:
    """Loaded drawing and prompt, the tour, a prompt it cannot know; then an own drawing: clicks are counted."""
    tour = page.locator(".first-run")
    tour.wait_for()
    assert tour.locator("li").count() == 5
    assert all(word in tour.inner_text() for word in ("circle", "triangle", "cyan", "gray"))
    panel = Panel(page)
    page.wait_for_function("() => document.querySelector('[id$=ControlNet-0_controlnet_model_dropdown] input')"
                           ".value.startsWith('demo_canny')")  # fmt: skip
    panel.settle()
    values = panel.values()
    assert page.locator("#txt2img_prompt textarea").input_value() == "a red heart on a gray background"
    assert values["controlnet_enable_checkbox"]
    assert values["controlnet_pixel_perfect_checkbox"]
    assert values["controlnet_preprocessor_dropdown"] == "canny"
    steps = [shot(page, "#txt2img_toprow"), shot(page, "#txt2img_controlnet .cnet-image-row")]
    page.evaluate(COUNT_CLICKS)
    assert press_generate(page).startswith("Time taken")
    assert page.evaluate("window.clicks") == 1
    result, control_map = pictures(page)
    assert edge_score(edges(result), control_map.max(2) > 127).f1 > 0.7

    steps.append(shot(page, "#txt2img_gallery_container"))
    page.locator("#txt2img_prompt textarea").fill("a red castle with a cat on a gray background")
    said = press_generate(page)
    assert said.startswith('This checkpoint was never taught "castle", "cat"')
    assert "heart" in said
    assert "Error" not in said
    page.locator("#txt2img_prompt textarea").fill("a blue square on a white background")

    page.evaluate("window.clicks = 0")
    panel.part("controlnet_open_new_canvas_button").click()
    paper = page.locator(".cnet-canvas canvas").first
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    corners = [(0.25, 0.3), (0.75, 0.3), (0.75, 0.7), (0.25, 0.7), (0.25, 0.3)]
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*at[0])
    page.mouse.down()
    for corner in at[1:]:
        page.mouse.move(*corner, steps=5)
    page.mouse.up()
    page.mouse.move(0, 0)
    steps.append(shot(page, ".cnet-canvas"))
    assert press_generate(page).startswith("Time taken")
    assert page.evaluate("window.clicks") <= 8
    own, own_map = pictures(page)
    assert own_map.shape == own.shape
    assert 0.005 < (own_map.max(2) > 127).mean() < 0.3
    inside, outside = own[54:74, 54:74].mean((0, 1)), own[4:20, 4:20].mean((0, 1))
    assert inside[2] > inside[0] + 50, "blue inside of what was drawn"
    assert outside.min() > 180, "white outside"

    steps.append(shot(page, "#txt2img_gallery_container"))
    side_by_side(steps, "1  prompt", "2  drawing", "3  Generate", "4  New canvas", "5  Generate")
    page.locator("[data-first-run=close]").click()
    assert not tour.is_visible()
    # gradio 4 itself puts buttons into the gallery's preview, which is one
    assert serious_faults(page, "#tab_txt2img" if GRADIO_3 else "#txt2img_controlnet") == ""


def test_page_has_what_people_expect(page: Any, tmp_path: Any) -> None:
    """Keys, progress, interrupting, results that go on, tooltips, inpainting's options."""
    page.locator("#txt2img_prompt textarea").fill("a red heart on a gray background")
    page.locator("#txt2img_generate[title]").wait_for()
    hints = page.evaluate("Array.from(document.querySelectorAll('[title]'), (x) => x.title)")
    assert any("Ctrl+Enter" in hint for hint in hints)
    assert any("same seed" in hint for hint in hints)
    assert any("Download the picture" in hint for hint in hints)

    page.locator("#txt2img_steps input[type=number]").fill("150")
    page.locator("#txt2img_steps input[type=number]").blur()
    page.traffic.settle()
    page.evaluate("window.titles = new Set(); setInterval(() => window.titles.add(document.title), 50)")
    page.keyboard.press("Control+Enter")
    page.locator(".host-preview[src]").first.wait_for(timeout=90_000)
    page.wait_for_function("() => Array.from(window.titles).some((x) => /^\\[\\d+% ETA: /.test(x))")
    page.keyboard.press("Escape")
    stopped = page.locator("#html_log_txt2img .stopped").first
    stopped.wait_for()
    said = stopped.inner_text()
    assert said.startswith("Interrupted at step ")
    assert "of 150" in said
    page.locator("body:not(.generating)").wait_for()
    assert not page.title().startswith("[")

    page.locator("#txt2img_steps input[type=number]").fill("3")
    page.locator("#txt2img_seed input").fill("77")
    page.locator("#txt2img_seed input").blur()
    page.traffic.settle()
    assert press_generate(page).startswith("Time taken")
    saved = page.locator("#html_saved_txt2img").first.inner_text()
    assert "txt2img-images" in saved
    assert "-77.png" in saved
    with page.expect_download() as download:
        page.locator("#save_txt2img").click()
    download.value.save_as(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert "Seed: 77" in picture.info["parameters"]
    page.locator("#txt2img_open_folder").click()
    page.traffic.settle()

    if GRADIO_3:  # gradio 4's editor of masks takes minutes in a browser without a card
        page.locator("#txt2img_send_to_inpaint").click()
        page.locator("#img2maskimg canvas, #img2maskimg img").first.wait_for()
        page.traffic.settle()
        assert page.locator("#img2img_seed input").input_value() == "77"
        assert page.locator("#img2img_prompt textarea").input_value() == "a red heart on a gray background"
        page.locator("#img2img_mask_blur").wait_for()
        page.locator("#mode_img2img > .tab-nav > button").first.click()
        page.traffic.settle()
    assert not page.locator("#img2img_mask_blur").is_visible()

    page.locator("#tabs > .tab-nav button", has_text="PNG Info").click()
    page.locator("#pnginfo_image input[type=file]").set_input_files(str(tmp_path / "picture.png"))
    page.wait_for_function("() => document.querySelector('#pnginfo_text textarea').value.includes('Seed: 77')")
    page.locator("#tabs > .tab-nav button", has_text="txt2img").click()
    page.locator("#txt2img_prompt textarea").fill("")
    page.locator("#txt2img_seed input").fill("5")
    page.locator("#tabs > .tab-nav button", has_text="PNG Info").click()
    page.locator("#pnginfo_send_to_txt2img").click()
    page.traffic.settle()
    assert page.locator("#txt2img_seed input").input_value() == "77"
    assert page.locator("#txt2img_prompt textarea").input_value() == "a red heart on a gray background"
    page.locator("#tabs > .tab-nav button", has_text="PNG Info").click()
    page.locator("#pnginfo_send_to_img2img").click()
    page.locator("#img2img_image img").first.wait_for()
    page.traffic.settle()
    assert image_pixels(page, page.locator("#img2img_image img").first).shape == (128, 128, 3)
    assert DRAWING.is_file()


def test_models_are_found_brought_stopped_and_resumed(page: Any, hub: Any) -> None:
    """The page Models: nothing is asked of the hub before Download; a Stop keeps what has come."""
    page.locator("#tabs > .tab-nav button", has_text="ControlNet").click()
    page.locator("#controlnet_pages button", has_text="Models").first.click()
    page.locator("#controlnet_offer_table table").first.wait_for()
    page.traffic.settle()
    offered = page.locator("#controlnet_offer_table").first
    assert "control_v11p_sd15_mlsd_fp16" in offered.inner_text()
    page.locator("#controlnet_models_search textarea, #controlnet_models_search input").first.fill("demo scribble")
    page.traffic.settle()
    page.locator("#controlnet_models_table caption", has_text="(1)").first.wait_for()
    page.locator("#controlnet_models_search textarea, #controlnet_models_search input").first.fill("")
    choose(page, "controlnet_models_type", "MLSD")
    page.locator("#controlnet_models_lacking p", has_text="MLSD: no model here fits").first.wait_for()
    page.locator("#controlnet_offer_table caption", has_text="(2)").first.wait_for()
    assert "Scribble" not in page.locator("#controlnet_models_lacking").first.inner_text()
    page.locator("#controlnet_models_fitting input").check()
    page.locator("#controlnet_offer_table caption", has_text="(0)").first.wait_for()
    page.locator("#controlnet_models_fitting input").uncheck()
    choose(page, "controlnet_offer_choice", "control_v11p_sd15_mlsd_fp16.safetensors")
    assert hub.asked == []

    hub.held.clear()
    state = page.locator("#controlnet_offer_state").first
    page.locator("#controlnet_offer_download").click()
    end = time.monotonic() + 60
    while not hub.asked:
        assert time.monotonic() < end
        page.wait_for_timeout(100)
    page.wait_for_timeout(1000)
    page.locator("#controlnet_offer_stop").click()
    state.locator("p[role=alert]", has_text="was stopped").wait_for(timeout=60_000)
    hub.held.set()
    page.traffic.settle()
    page.locator("#controlnet_offer_download").click()
    state.locator("p", has_text="is the file that its hub has").wait_for(timeout=60_000)
    assert hub.asked[-1][1] > 0, "it went on where it was"
    assert hub.asked[-1][0].endswith("/resolve/main/control_v11p_sd15_mlsd_fp16.safetensors")
    page.locator("#controlnet_models_table td", has_text="control_v11p_sd15_mlsd_fp16").first.wait_for()
    page.traffic.settle()
    assert "control_v11p_sd15_mlsd_fp16" not in page.locator("#controlnet_offer_table").first.inner_text()
    page.locator("#controlnet_models_open_folder").click()
    page.locator("#controlnet_models_folder_answer p").first.wait_for()
    page.traffic.settle()
    assert serious_faults(page, "#controlnet_page_models") == ""


def choose(page: Any, elem_id: str, text: str) -> None:
    """An option of a list."""
    page.locator(f"#{elem_id} input").click()
    page.locator("ul.options li", has_text=text).first.click()
    page.traffic.settle()
