"""What a unit finds out about itself, from click to answer: bar, error map, floor and ceiling, the weight, Stop."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tests.browser.conftest import OTHER, SHOTS, Panel, image_pixels

LOG = "#html_log_txt2img"


def ask(canny: Panel, button: str, steps: int) -> None:
    """Asks by a button of "Measure", whose job has begun then."""
    page = canny.page
    group = canny.part("measure_group")
    if not canny.part(button).is_visible():
        group.locator(".label-wrap").first.click()
    page.locator("#txt2img_steps input[type=number]").fill(str(steps))
    page.locator("#txt2img_steps input[type=number]").blur()
    page.locator("#txt2img_prompt textarea").fill("a red heart on a gray background")
    canny.settle()
    canny.part(button).click()


def answer(page: Any) -> str:
    page.traffic.settle(seconds=120)
    page.locator(f"{LOG} .time").first.wait_for()
    return str(page.locator(LOG).first.inner_text())


def look(canny: Panel) -> None:
    """The embedded WebUI captions nothing, which is known before a picture is made; others find out with one."""
    page = canny.page
    if OTHER:
        with page.traffic.following(seconds=120):
            ask(canny, "seen", 4)
        assert "cannot be said: the interrogator failed" in answer(page)
        return
    jobs = page.locator(f"{LOG} .time").inner_text()
    canny.part("seen").click()
    canny.part("measured").locator("p", has_text="no interrogator").wait_for(timeout=5000)
    assert page.locator(f"{LOG} .time").inner_text() == jobs


def test_from_click_to_answer(canny: Panel) -> None:
    page = canny.page
    with page.traffic.following(seconds=120):
        ask(canny, "bounds", 4)
    said = answer(page)
    assert "without control" in said
    assert "through the VAE" in said
    bar = page.locator(f"{LOG} .cnet-bar").first
    bar.wait_for()
    assert re.search(r"Adherence 0\.\d\d", canny.part("measured").inner_text())
    page.screenshot(path=SHOTS / "measure_bar.png")
    bar.click()
    canvas = page.locator("dialog canvas, .cnet-dialog canvas").first
    canvas.wait_for()
    page.screenshot(path=SHOTS / "measure_map.png")
    page.locator("button:visible", has_text="Close").first.click()

    with page.traffic.following(seconds=120):
        ask(canny, "find_weight", 4)
        assert "progress" in canny.part("measured").inner_text()
    found = re.search(r"weight ([\d.]+) (?:is the least|comes nearest)", answer(page))
    assert found
    assert canny.values()["controlnet_control_weight_slider"] == found[1]
    curve = page.locator("#txt2img_gallery img").last
    assert np.ptp(image_pixels(page, curve)) > 100
    page.screenshot(path=SHOTS / "measure_weight.png")

    look(canny)
    with page.traffic.following(seconds=120):
        ask(canny, "find_weight", 60)
        page.wait_for_timeout(1500)
        canny.part("measure_stop").click()
    assert "stopped before it was found out" in answer(page)
    told = canny.part("measured").inner_text()
    assert told.startswith("stopped before it was found out")
    assert "weight" not in told


def test_a_remedy_of_another_type_is_taken_whole(canny: Panel) -> None:
    """Its line stands in the log as a job writes it: the embedded WebUI has no interrogator to come to one."""
    page = canny.page
    names = page.request.get(page.url.split("?")[0] + "controlnet/model_list").json()["model_list"]
    model = next(name for name in names if name.startswith("demo_scribble"))
    fields = f"preprocessor = scribble_xdog; model = {model}"
    line = f"unit 0: remedy 1: softer kind (Scribble) [{fields}]: adherence 0.40, agreement with the prompt 1.00"
    page.evaluate(
        "([log, line]) => document.querySelector(log).append(document.createTextNode(`ControlNet ${line}`))",
        [LOG, line],
    )
    canny.part("measure_group").locator(".label-wrap").first.click()
    canny.part("measured").locator(".cnet-remedy").click()
    page.wait_for_function(
        "(field) => document.querySelector(field).value === 'scribble_xdog'",
        arg="#txt2img_controlnet_ControlNet-0_controlnet_preprocessor_dropdown input",
    )
    canny.settle()
    assert canny.values()["controlnet_model_dropdown"] == model
    assert canny.values()["controlnet_type_filter_radio"] == "Scribble"
