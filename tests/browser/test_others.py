"""How the pages of other extensions put a picture into our panel: by ids and by the first file input they find."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import Panel, pixels

playwright = pytest.importorskip("playwright.sync_api")

FIND = {
    "depth library": 'document.querySelector("#txt2img_controlnet").querySelector("input[type=\'file\']")',
    "openpose editor": 'document.querySelector("#txt2img_script_container").querySelector("#controlnet")'
    ".querySelector(\"input[type='file']\")",
    "3D editor": 'document.querySelector("#txt2img_script_container").querySelector("#controlnet")'
    ".querySelectorAll('div[data-testid=\"image\"]')[0].querySelector(\"input[type='file']\")",
}
OPEN = """() => {
    // gradio 4 has buttons there; what looks for a div finds no panel in its hosts, and opens none
    const panel = document.querySelector("#txt2img_controlnet");
    const label = panel.querySelector("div.label-wrap") ?? panel.querySelector("button.label-wrap");
    const icon = document.querySelector("#txt2img_script_container").querySelector("#controlnet > .label-wrap > .icon");
    if (icon === null) throw new Error("there is no icon to open the panel by");
    if (!label.classList.contains("open")) label.click();
}"""
SEND = """async ([find, data]) => {
    const blob = await (await fetch(data)).blob();
    const transfer = new DataTransfer();
    transfer.items.add(new File([blob], "pose.png", {type: "image/png"}));
    const input = eval(find);
    input.value = "";
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", {bubbles: true, composed: true}));
}"""


@pytest.mark.parametrize("who", FIND)
def test_a_picture_sent_by_another_page_is_the_first_units(panel: Panel, tmp_path: Path, who: str) -> None:
    sent = np.zeros((64, 64, 3), np.uint8)
    sent[16:48, 8:56] = (250, 10, 10)
    Image.fromarray(sent).save(tmp_path / "pose.png")
    data = "data:image/png;base64," + base64.b64encode((tmp_path / "pose.png").read_bytes()).decode()
    panel.page.evaluate(OPEN)
    panel.page.evaluate(SEND, [FIND[who], data])
    panel.part("input_image").locator("img").first.wait_for()
    panel.settle()
    shown = pixels(panel, "input_image").astype(int)
    middle = shown[shown.shape[0] // 2, shown.shape[1] // 2]
    assert middle[0] > 200 > 60 > middle[1]
    enabled = panel.part("controlnet_enable_checkbox").locator("input")
    playwright.expect(enabled).to_be_checked(timeout=20_000)  # the page does it when the upload has come back


def test_both_tabs_have_the_ids_that_others_look_for(panel: Panel) -> None:
    for tab in ("txt2img", "img2img"):
        assert panel.page.locator(f"#{tab}_controlnet").count() == 1
        assert panel.page.locator(f"#{tab}_script_container #controlnet").count() == 1
        first = panel.page.locator(f"#{tab}_script_container #controlnet .tab-nav").first
        assert first.locator("button").first.inner_text().startswith("ControlNet Unit 0")
