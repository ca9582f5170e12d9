"""The canvas of a unit as somebody draws on it: pointer, pen, finger and keys, and what the unit gets of it."""

from __future__ import annotations

import base64
import io
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import DRAWING, ROOT, SHOTS, Panel, pixels, serious_faults

SIZE = 128
"""Of a job in the embedded WebUI."""


class Canvas:
    """The open canvas of a unit; places are parts of the picture, 0 to 1."""

    def __init__(self, panel: Panel, unit: int = 0) -> None:
        self.panel = panel
        self.unit = unit
        self.page = panel.page
        self.root = panel.page.locator(f"dialog.cnet-canvas[aria-label='Canvas of ControlNet Unit {unit}']")
        self.root.wait_for()

    def at(self, x: float, y: float) -> tuple[float, float]:
        self.root.locator(".cnet-viewport").scroll_into_view_if_needed()
        box = self.root.locator(".cnet-stage").bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def press(self, text: str) -> None:
        self.root.get_by_role("button", name=text, exact=True).click()

    def draw(self, *places: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*places[0]))
        self.page.mouse.down()
        for place in places[1:] or places:
            self.page.mouse.move(*self.at(*place), steps=4)
        self.page.mouse.up()

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.at(x, y))

    def layer(self, name: str) -> np.ndarray:
        """(h, w, 4) of a layer, as it is shown."""
        address = self.root.locator(f".cnet-layer-{name}").evaluate("(canvas) => canvas.toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"))

    def sent(self, name: str = "input_image") -> np.ndarray:
        """(h, w, 3) of the picture that the unit has, once what was drawn has come into it."""
        self.page.wait_for_function(IDLE)
        self.panel.settle()
        return pixels(self.panel, name, self.unit)


IDLE = """() => !document.querySelector('dialog.cnet-canvas[data-busy="yes"]')"""


@pytest.fixture
def canvas(panel: Panel) -> Canvas:
    """Black paper of the job's size."""
    panel.part("controlnet_open_new_canvas_button").click()
    return Canvas(panel)


def test_what_is_drawn_is_what_the_model_gets(canvas: Canvas) -> None:
    panel = canvas.panel
    panel.part("picture_note").locator(".cnet-warn", has_text="is empty").wait_for()
    canvas.draw((0.2, 0.5), (0.8, 0.5))
    picture = canvas.sent()
    assert picture.shape == (SIZE, SIZE, 3)
    assert np.unique(picture).tolist() == [0, 255]
    assert (picture[SIZE // 2, 30:98] == 255).all()
    assert not picture[:50].any()
    assert panel.part("controlnet_enable_checkbox").locator("input").is_checked()
    panel.choose("controlnet_type_filter_radio", "Scribble")
    panel.part("picture_note").locator("p", has_text="goes to the model as it is").wait_for()
    assert panel.values()["controlnet_preprocessor_dropdown"] == "none"
    panel.preview()
    shown = pixels(panel, "generated_image").astype(int)  # gradio 4 shows it with some loss
    assert (abs(shown - picture) > 64).mean() < 0.01


def test_black_on_white_is_turned_over(canvas: Canvas) -> None:
    panel = canvas.panel
    panel.choose("controlnet_type_filter_radio", "Scribble")
    canvas.press("New …")
    canvas.press("Black on white")
    canvas.draw((0.2, 0.5), (0.8, 0.5))
    picture = canvas.sent()
    assert picture[0, 0].tolist() == [255, 255, 255]
    panel.part("picture_note").locator("p", has_text="dark lines become white ones").wait_for()
    assert panel.values()["controlnet_preprocessor_dropdown"].startswith("scribble (from white bg")
    panel.number("preprocessor_resolution", SIZE)
    panel.preview()
    assert (pixels(panel, "generated_image") == 255 - picture).mean() > 0.97
    canvas.press("Invert")  # white on black now, which needs no preprocessor
    panel.part("picture_note").locator("p", has_text="as it is").wait_for()
    assert (canvas.sent() == 255 - picture).all()
    assert panel.values()["controlnet_preprocessor_dropdown"] == "none"


def test_a_click_on_generate_waits_for_what_is_drawn(canvas: Canvas) -> None:
    panel = canvas.panel
    panel.choose("controlnet_type_filter_radio", "Canny")
    steps = panel.page.locator(f"#{panel.tab}_steps input[type=number]")
    steps.fill("2")
    steps.blur()
    panel.page.locator(f"#{panel.tab}_prompt textarea").fill("a red heart")
    panel.settle()
    canvas.draw((0.2, 0.2), (0.8, 0.2), (0.5, 0.9), (0.2, 0.2))
    with panel.page.traffic.following(seconds=90):
        panel.page.locator(f"#{panel.tab}_generate").click()
    panel.page.locator(f"#html_log_{panel.tab} .time").first.wait_for()
    assert "Module: none" in panel.infotext()
    assert (pixels(panel, "input_image") == 255).mean() > 0.01
    assert "is empty" not in panel.part("picture_note").inner_text()


def test_tools_undo_and_redo(canvas: Canvas) -> None:
    canvas.press("Line")
    for start, end in (((0.25, 0.25), (0.75, 0.25)), ((0.75, 0.25), (0.75, 0.75)), ((0.75, 0.75), (0.25, 0.75)),
                       ((0.25, 0.75), (0.25, 0.25))):  # fmt: skip
        canvas.draw(start, end)
    square = canvas.layer("drawing")
    assert square[32, 40:90, 3].all()
    assert not square[64, 64].any()
    canvas.press("Fill")
    canvas.click(0.5, 0.5)
    filled = canvas.layer("drawing")
    assert (filled[36:92, 36:92] == 255).all()
    assert not filled[:28, :, 3].any()
    canvas.press("Eraser")
    canvas.draw((0.5, 0.4), (0.5, 0.6))
    erased = canvas.layer("drawing")
    assert not erased[64, 64].any()
    steps = [erased, filled, square]
    for before in steps[1:]:
        canvas.press("Undo")
        assert (canvas.layer("drawing") == before).all()
    for after in reversed(steps[:2]):
        canvas.page.keyboard.press("Control+Shift+Z")
        assert (canvas.layer("drawing") == after).all()
    assert (canvas.sent()[64, 64] == 0).all()
    assert (canvas.sent()[40, 40] == 255).all()


def test_a_mask_is_drawn_over_the_picture(canny: Panel) -> None:
    canny.part("draw").click()
    canvas = Canvas(canny)
    canvas.press("Mask")
    canvas.draw((0.3, 0.5), (0.6, 0.5))
    canny.page.wait_for_function(IDLE)
    canvas.press("Close")
    canny.part("input_tabs").locator("button", has_text="Mask").click()
    canny.part("mask_image").locator("img").first.wait_for()
    mask = pixels(canny, "mask_image")
    assert np.unique(mask).tolist() == [0, 255]
    assert 0.005 < (mask > 127).mean() < 0.2
    assert canny.values()["controlnet_preprocessor_dropdown"] == "canny"
    canny.part("draw").click()
    canvas.press("Mask")
    canvas.press("Clear")
    canny.page.wait_for_function(IDLE)
    assert canny.part("mask_image").locator("img").count() == 0


def test_regions_of_all_units_are_shown_together(canny: Panel) -> None:
    canny.part("draw").click()
    first = Canvas(canny)
    first.press("Region")
    first.draw((0.1, 0.1), (0.1, 0.9))
    region = first.sent("effective_region_mask")
    assert np.unique(region).tolist() == [0, 255]
    assert canny.part("controlnet_effective_region_mask_checkbox").locator("input").is_checked()
    canny.choose_unit(1)
    canny.upload(DRAWING, unit=1)
    canny.part("draw", 1).click()
    second = Canvas(canny, 1)
    second.press("Region")
    second.draw((0.9, 0.1), (0.9, 0.9))
    second.sent("effective_region_mask")
    second.root.locator(".cnet-legend", has_text="ControlNet Unit 0").wait_for()
    other, own = second.layer("others"), second.layer("region")
    assert other[200, 38].tolist() == [*bytes.fromhex("e6194b"), 255]
    assert own[200, 346].tolist() == [*bytes.fromhex("3cb44b"), 255]
    assert not other[200, 346].any()
    shot(second, "regions")


@pytest.mark.parametrize("opened_before", [False, True])
def test_undo_brings_back_the_picture_that_new_canvas_replaced(
    canny: Panel, opened_before: bool, tmp_path: Path
) -> None:
    if opened_before:  # the canvas knows another picture than the unit has by then
        canny.part("draw").click()
        Canvas(canny).press("Close")
        clear = canny.part("input_image").locator("button[aria-label='Clear'], button[aria-label='Remove Image']")
        clear.first.evaluate("(button) => button.click()")
        canny.part("input_image").locator("img").first.wait_for(state="detached")
        Image.open(DRAWING).crop((64, 64, 320, 192)).save(tmp_path / "part.png")
        canny.upload(tmp_path / "part.png")
    picture = pixels(canny, "input_image")
    canny.part("controlnet_open_new_canvas_button").click()
    canvas = Canvas(canny)
    assert not canvas.sent().any()
    canvas.press("Undo")
    assert np.array_equal(canvas.sent(), picture)
    canvas.press("Redo")
    assert not canvas.sent().any()


def test_palette_colours_are_exact(canvas: Canvas) -> None:
    canvas.press("Palette")
    canvas.root.get_by_role("searchbox").fill("sky")
    canvas.root.get_by_role("searchbox").press("Enter")
    canvas.press("Fill")
    canvas.click(0.5, 0.5)
    canvas.root.get_by_role("searchbox").fill("tree")
    canvas.root.get_by_role("searchbox").press("Enter")
    canvas.press("Pen")
    canvas.draw((0.1, 0.1), (0.9, 0.85), (0.2, 0.6))
    colours = {tuple(colour) for colour in canvas.sent().reshape(-1, 3).tolist()}
    assert colours == {(6, 230, 230), (4, 200, 3)}


def test_the_canvas_follows_the_unit_and_undo_brings_it_back(canvas: Canvas) -> None:
    panel = canvas.panel
    canvas.draw((0.2, 0.5), (0.8, 0.5))
    drawn = canvas.sent()
    panel.part("presets").locator("> .label-wrap").click()
    panel.part("preset_reset").click()
    canvas.root.locator(".cnet-layer-drawing").wait_for(state="detached")
    panel.settle()
    assert panel.part("input_image").locator("img").count() == 0
    canvas.press("Undo")
    panel.part("input_image").locator("img").wait_for(state="attached")
    assert (canvas.sent() == drawn).all()
    clear = panel.part("input_image").locator("button[aria-label='Clear'], button[aria-label='Remove Image']")
    clear.first.evaluate("(button) => button.click()")
    panel.part("input_image").locator("input[type=file]").set_input_files(str(DRAWING))
    canvas.root.locator(".cnet-canvas-state", has_text="384 × 384").wait_for()
    assert panel.part("drawn").locator("textarea, input").input_value() == ""


def test_drawing_by_keys_alone(canvas: Canvas) -> None:
    page = canvas.page
    canvas.root.locator(".cnet-viewport").focus()
    page.keyboard.press("Enter")
    for _ in range(6):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    picture = canvas.sent()
    assert (picture[64, 66:108] == 255).all()
    assert not picture[70:].any()
    before = canvas.root.locator(".cnet-canvas-state").inner_text()
    page.keyboard.press("+")
    assert canvas.root.locator(".cnet-canvas-state").inner_text() != before
    page.keyboard.press("0")
    page.keyboard.press("e")
    assert canvas.root.get_by_role("button", name="Eraser").get_attribute("aria-pressed") == "true"
    page.keyboard.press("2")
    assert canvas.root.get_by_role("button", name="Mask").get_attribute("aria-pressed") == "true"


def test_finger_pen_and_pinch(canvas: Canvas) -> None:
    page = canvas.page
    devtools = page.context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(canvas.at(*place) for place in places)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.2, 0.3))
    for x in (0.4, 0.6, 0.8):
        touch("touchMove", (x, 0.3))
    touch("touchEnd")
    assert canvas.layer("drawing")[38, 30:98, 3].all()
    before, zoom = canvas.layer("drawing"), canvas.root.locator(".cnet-canvas-state").inner_text()
    touch("touchStart", (0.45, 0.7))
    touch("touchStart", (0.45, 0.7), (0.55, 0.7))
    touch("touchMove", (0.3, 0.7), (0.7, 0.7))
    touch("touchEnd")
    assert (canvas.layer("drawing") == before).all()
    assert canvas.root.locator(".cnet-canvas-state").inner_text() != zoom
    canvas.press("Fit")

    def pen(kind: str, x: float, y: float, force: float) -> None:
        left, top = canvas.at(x, y)
        event = {
            "type": kind,
            "x": left,
            "y": top,
            "button": "left",
            "buttons": 1,
            "pointerType": "pen",
            "force": force,
        }
        devtools.send("Input.dispatchMouseEvent", {**event, "clickCount": 1})

    canvas.root.locator("input[type=range]").fill("20")
    widths = []
    for y, force in ((0.55, 0.2), (0.8, 1.0)):
        pen("mousePressed", 0.3, y, force)
        pen("mouseMoved", 0.7, y, force)
        pen("mouseReleased", 0.7, y, force)
        widths.append(int((canvas.layer("drawing")[45:, 64, 3] > 0).sum()))
    assert 2 <= widths[0] <= 6
    assert 18 <= widths[1] - widths[0] <= 22


@pytest.mark.parametrize("page", [{"theme": "dark"}, {"theme": "light", "viewport": {"width": 380, "height": 800}}],
                         indirect=True, ids=["dark", "phone"])  # fmt: skip
def test_canvas_for_everybody(canvas: Canvas, request: pytest.FixtureRequest) -> None:
    """axe-core finds no serious fault with everything unfolded; a phone's page is not wider than the phone."""
    page = canvas.page
    for fold in ("Palette", "New …", "Keys"):
        canvas.press(fold)
    canvas.draw((0.2, 0.5), (0.8, 0.5))
    canvas.sent()
    assert serious_faults(page, "dialog.cnet-canvas") == ""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"canvas-{request.node.callspec.id}.png")


def test_a_photograph_where_lines_are_expected_is_said(panel: Panel, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "photo.png")
    lines = np.full((64, 64), 255, np.uint8)
    lines[20:24] = 0
    Image.fromarray(lines).save(tmp_path / "lines.png")
    panel.choose("controlnet_type_filter_radio", "Scribble")
    panel.select("controlnet_preprocessor_dropdown", "none")
    for name, said in (("photo", "looks like a photograph"), ("lines", "dark lines on white")):
        panel.upload(tmp_path / f"{name}.png")
        panel.part("picture_note").locator(".cnet-warn", has_text=said).wait_for()
        assert panel.values()["controlnet_preprocessor_dropdown"] == "none"
        panel.part("input_image").locator("button[aria-label='Clear'], button[aria-label='Remove Image']").first.click()
        panel.settle()


SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10"><rect x="5" y="2" width="10" height="6"/></svg>"""


def test_svg_and_pose_files_are_taken(panel: Panel, tmp_path: Path) -> None:
    (tmp_path / "box.svg").write_text(SVG)
    (tmp_path / "broken.svg").write_text("<svg")
    panel.upload(tmp_path / "box.svg")
    picture = pixels(panel, "input_image")
    expected = np.full((64, 128, 3), 255, np.uint8)  # as wide as the job, and white around the box
    expected[13:51, 32:96] = 0
    assert (picture == expected).mean() > 0.98  # the edges are smooth
    panel.part("draw").click()
    canvas = Canvas(panel)
    canvas.root.evaluate(DROP, ["pose.json", "application/json", json.dumps(POSE)])
    panel.part("generated_image").locator("img").first.wait_for(state="attached")
    panel.settle()
    assert pixels(panel, "generated_image").shape == (64, 96, 3)
    assert panel.part("controlnet_preview_as_input_checkbox").locator("input").is_checked()
    canvas.root.evaluate(DROP, ["broken.svg", "image/svg+xml", "<svg"])
    panel.page.locator("dialog.cnet-dialog", has_text="is no SVG").wait_for()


POSE = {"people": [{"pose_keypoints_2d": [10, 10, 1, 40, 40, 1]}], "canvas_width": 96, "canvas_height": 64}
DROP = """(target, [name, type, text]) => {
    const data = new DataTransfer();
    data.items.add(new File([text], name, {type}));
    target.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


def test_strokes_keep_up_with_the_hand(canvas: Canvas) -> None:
    """A broad pen on 1024 x 1024 until it is lifted; what is drawn goes into gradio's component once the hand rests.

    Of the browser's trace, the processor's time in the page's own thread: what other programs take does not count.
    """
    page = canvas.page
    canvas.press("New …")
    for side in ("Width", "Height"):
        canvas.root.get_by_label(side).fill("1024")
    canvas.press("White on black")
    canvas.sent()
    canvas.root.locator("input[type=range]").fill("60")
    page.evaluate(COUNT)
    start = canvas.at(0.5, 0.5)
    page.context.browser.start_tracing(
        page=page, categories=["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline"]
    )
    page.mouse.move(*start)
    page.mouse.down()
    for number in range(120):
        angle = number / 8
        page.mouse.move(start[0] + 180 * np.cos(angle), start[1] + 180 * np.sin(2 * angle))
    page.mouse.up()
    trace = json.loads(page.context.browser.stop_tracing())["traceEvents"]
    moves, drawn = page.evaluate("[window.moves, window.drawn]")
    tasks = page_tasks(trace)
    drawing = sum(event["tdur"] for event in trace if is_pointer_move(event)) / 1000
    picture = canvas.sent()
    assert picture.shape == (1024, 1024, 3)
    assert (picture == 255).mean() > 0.1
    assert drawn >= moves > 60
    assert max(tasks) < 50, sorted(tasks)[-5:]
    assert drawing / moves < 1000 / 60, drawing / moves


COUNT = """() => {
    window.moves = 0;
    window.drawn = 0;
    document.querySelector(".cnet-viewport").addEventListener("pointermove", () => { window.moves += 1; });
    const put = CanvasRenderingContext2D.prototype.putImageData;
    CanvasRenderingContext2D.prototype.putImageData = function (...given) {
        window.drawn += 1;
        return put.apply(this, given);
    };
}"""


def page_tasks(trace: list[dict[str, Any]]) -> list[float]:
    """Milliseconds of the processor's time of every task in the threads that ran the page's events."""
    threads = {(event["pid"], event["tid"]) for event in trace if is_pointer_move(event)}
    assert threads, "no event of the pointer is in the trace"
    return [
        event["tdur"] / 1000
        for event in trace
        if event.get("name") in ("RunTask", "ThreadControllerImpl::RunTask")
        and (event["pid"], event["tid"]) in threads
        and "tdur" in event
    ]


def is_pointer_move(event: dict[str, Any]) -> bool:
    data = event.get("args", {}).get("data", {})
    return event.get("name") == "EventDispatch" and data.get("type") == "pointermove" and "tdur" in event


def test_pictures_of_the_docs(canvas: Canvas) -> None:
    """A house in lines, and with its things by name. With REMAKE_DOCS set they are those of docs/canvas.md."""
    panel = canvas.panel
    panel.choose("controlnet_type_filter_radio", "Scribble")
    canvas.press("Line")
    house = [(0.25, 0.85), (0.25, 0.45), (0.5, 0.2), (0.75, 0.45), (0.75, 0.85), (0.25, 0.85)]
    for start, end in pairwise(house):
        canvas.draw(start, end)
    canvas.sent()
    shot(canvas, "drawing")
    canvas.press("New …")
    canvas.press("White on black")
    fills = (("sky", "Fill", ((0.5, 0.3),)), ("grass", "Line", ((0.0, 0.95), (1.0, 0.95))),
             ("house", "Line", ((0.5, 0.5), (0.5, 0.8))), ("tree", "Pen", ((0.15, 0.4), (0.12, 0.7))))  # fmt: skip
    for name, tool, places in fills:
        canvas.root.locator("input[type=range]").fill({"grass": "32", "house": "50", "tree": "20"}.get(name, "4"))
        canvas.press("Palette")
        canvas.root.get_by_role("searchbox").fill(name)
        canvas.root.get_by_role("searchbox").press("Enter")
        canvas.press("Palette")
        canvas.press(tool)
        canvas.draw(*places)
    canvas.press("Palette")
    canvas.root.get_by_role("searchbox").fill("")
    colours = {tuple(colour) for colour in canvas.sent().reshape(-1, 3).tolist()}
    assert colours == {(6, 230, 230), (4, 250, 7), (255, 9, 224), (4, 200, 3)}
    shot(canvas, "palette")


def shot(canvas: Canvas, name: str) -> None:
    folder = ROOT / "docs" / "canvas" if os.environ.get("REMAKE_DOCS") else SHOTS
    folder.mkdir(exist_ok=True)
    picture = Image.open(io.BytesIO(canvas.root.screenshot()))
    picture.convert("RGB").quantize(64).save(folder / f"{name}.png", optimize=True)
