"""Sliders over the exact numbers, and Pixel Perfect where sizes disagree."""

from __future__ import annotations

from typing import Any

import pytest

from lib_controlnet.core.strengths import STRENGTHS, WHOLE
from tests.browser.conftest import SHOTS, Panel, serious_faults

WEIGHT, START, END = "control_weight", "start_control_step", "ending_control_step"


def exact(panel: Panel) -> tuple[float, float, float]:
    """Weight, start and end of the unit."""
    values = panel.values()
    weight, start, end = (float(values[f"controlnet_{name}_slider"]) for name in (WEIGHT, START, END))
    return weight, start, end


def test_sliders_over_the_exact_numbers(canny: Panel) -> None:
    page = canny.page
    root = canny.page.locator("#txt2img_controlnet .tabitem").first
    strength = root.locator(".cnet-strength input").first
    said = root.locator(".cnet-strength output").first
    assert said.inner_text() == "100 %"
    strength.fill("50")
    for kind in ("Canny", "Depth", "Tile"):
        canny.choose("controlnet_type_filter_radio", kind)
        strength.fill("100")
        strength.fill("50")
        canny.settle()
        curve = STRENGTHS.get(kind, WHOLE)
        assert exact(canny) == (
            pytest.approx(curve.weight(0.5), abs=0.026),
            0,
            pytest.approx(curve.end(0.5), abs=0.006),
        )
        assert said.inner_text() == "50 %"
    canny.choose("controlnet_type_filter_radio", "Canny")
    canny.number(WEIGHT, 1.35)
    canny.settle()
    assert said.inner_text() == "own values"

    first, last = root.locator(".cnet-steps input").first, root.locator(".cnet-steps input").nth(1)
    root.locator(".cnet-steps").first.evaluate("track => track.scrollIntoView({block: 'center'})")
    box = root.locator(".cnet-steps").first.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 8, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, y, steps=4)
    page.mouse.up()
    canny.settle()
    weight, start, end = exact(canny)
    assert (weight, end) == (1.35, 1)
    assert start == pytest.approx(0.4, abs=0.03)
    last.focus()
    page.keyboard.press("Home")
    canny.settle()
    assert exact(canny)[1:] == (0, 0), "a thumb takes the other along"
    canny.number(START, 0.25)
    canny.number(END, 0.75)
    canny.settle()
    assert (float(first.input_value()), float(last.input_value())) == (0.25, 0.75)
    last.fill("0.5")
    canny.settle()
    assert "13%" not in canny.part("notes").inner_text()
    generated = canny.generate()
    assert generated >= 1
    assert "Guidance Start: 0.25, Guidance End: 0.5" in canny.infotext()

    _offers_pixel_perfect(canny, page)
    assert serious_faults(page, "#txt2img_controlnet") == ""
    SHOTS.mkdir(exist_ok=True)
    canny.root.screenshot(path=SHOTS / "sliders.png")


def _offers_pixel_perfect(canny: Panel, page: Any) -> None:
    """512 is what a preprocessor begins with, and the demo's job is 128 pixels wide."""
    offer = canny.page.locator(".cnet-offer").first
    offer.wait_for()
    assert "made at 512 px and the picture is 128 × 128: 128 px would fit" in offer.inner_text()
    canny.number("preprocessor_resolution", 136)
    canny.settle()
    assert not offer.is_visible()
    canny.number("preprocessor_resolution", 320)
    offer.wait_for()
    page.locator("#txt2img_width input[type=number]").fill("320")
    page.locator("#txt2img_width input[type=number]").blur()
    canny.settle()
    assert not offer.is_visible(), "the larger side decides where the rest is cut"
    canny.number("preprocessor_resolution", 64)
    offer.locator("button").click()
    canny.settle()
    assert not offer.is_visible()
    assert canny.values()["controlnet_pixel_perfect_checkbox"]
