"""The embedded WebUI as a process, and a Chromium that looks at it. Screenshots are kept in tests/browser/shots."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser import hub as hubs
from tests.browser.stage import stage

ROOT = Path(__file__).resolve().parents[2]
SHOTS = Path(__file__).with_name("shots")
WIDE = {"width": 1400, "height": 1000}
"""The view of a test that asks for none."""
DRAWING = ROOT / "models" / "demo" / "drawing.png"
OTHER = os.environ.get("CONTROLNET_TEST_WEBUI")
"""The address of a running WebUI, as http://127.0.0.1:7860/, that is driven instead of the embedded one; and the port
on which it looks for the hub: CONTROLNET_TEST_HUB."""
_OWN = "/javascript/controlnet"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (requirements-dev.txt)")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the path; `apt-get install chromium` brings it on Debian")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="package")
def hub() -> Iterator[hubs.Hub]:
    """What the WebUI takes for the hub of models."""
    with hubs.running(int(os.environ.get("CONTROLNET_TEST_HUB", "0"))) as found:
        yield found


@pytest.fixture(scope="package")
def server(browser: Any, hub: hubs.Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a WebUI with the demo model and a control model that does not fit it."""
    if OTHER:
        yield OTHER
        return
    data, models, port = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("models"), free_port()
    stage(models, data / "models" / "ControlNetPreprocessor")
    log = (data / "log.txt").open("w+")
    command = [sys.executable, "-m", "standalone.webui", "--port", str(port), "--data-dir", str(data)]
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    process = subprocess.Popen(
        [*command, "--controlnet-dir", str(models)],
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "2",
            "HF_ENDPOINT": hub.address,
        },
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        _wait(address, process, log)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _wait(address: str, process: subprocess.Popen[Any], log: Any, seconds: int = 180) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    log.seek(0)
    pytest.fail("the WebUI did not start:\n" + log.read()[-4000:])


class Traffic:
    """What is under way between a page and the server; gradio 3 queues over web sockets, gradio 4 over requests."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.open: set[Any] = set()
        self.begun = 0
        page.on("request", self._began)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)
        page.on("websocket", self._socket)

    def _began(self, request: Any) -> None:
        # only handlers' calls and files: gradio 4 holds one stream open as long as the page lives
        if re.search(r"/(run|queue|upload|file=)", request.url) or "/controlnet/" in request.url:
            self._add(request)

    def _add(self, what: Any) -> None:
        self.open.add(what)
        self.begun += 1

    def _ended(self, request: Any) -> None:
        self.open.discard(request)

    def _socket(self, socket: Any) -> None:
        self._add(socket)
        socket.on("close", self._ended)

    def settle(self, quiet: int = 300, seconds: float = 60) -> None:
        """Wait until nothing has been under way for `quiet` milliseconds."""
        end, still = time.monotonic() + seconds, 0
        while still < quiet and time.monotonic() < end:
            self.page.wait_for_timeout(50)
            still = 0 if self.open else still + 50
        assert not self.open, f"still under way after {seconds:.0f} s: {self.open}"

    @contextmanager
    def following(self, seconds: float) -> Iterator[None]:
        """Wait for what the block sets off: for its beginning too, however slow the page is."""
        before, end = self.begun, time.monotonic() + seconds
        yield
        while self.begun == before:
            assert time.monotonic() < end, "nothing was sent to the server"
            self.page.wait_for_timeout(50)
        self.settle(seconds=seconds)


class Panel:
    """The panel of a tab in an open page."""

    def __init__(self, page: Any, tab: str = "txt2img") -> None:
        self.page = page
        self.tab = tab
        self.root = page.locator(f"#{tab}_controlnet")

    def settle(self) -> None:
        """Wait for what a click or an input has set off."""
        self.page.traffic.settle()

    def open(self) -> Panel:
        label = self.root.locator("#controlnet > .label-wrap")
        if "open" not in (label.get_attribute("class") or ""):
            label.click()
        self.part("controlnet_enable_checkbox").wait_for()
        return self

    def part(self, name: str, unit: int = 0) -> Any:
        return self.page.locator(f"#{self.tab}_controlnet_ControlNet-{unit}_{name}").first  # gradio doubles HTML

    def choose_unit(self, unit: int) -> None:
        self.page.locator(f"#{self.tab}_controlnet_tabs > .tab-nav > button").nth(unit).click()

    def upload(self, path: Path, name: str = "input_image", unit: int = 0) -> None:
        self.part(name, unit).locator("input[type=file]").set_input_files(str(path))
        self.part(name, unit).locator("img").first.wait_for()
        self.settle()

    def check(self, name: str, unit: int = 0) -> None:
        self.part(f"controlnet_{name}_checkbox", unit).locator("input").check()

    def choose(self, name: str, text: str, unit: int = 0) -> None:
        """An option of a radio."""
        self.part(name, unit).locator("label", has_text=text).first.click()
        self.settle()

    def select(self, name: str, text: str, unit: int = 0) -> None:
        """An option of a dropdown."""
        self.part(name, unit).locator("input").click()
        self.page.locator("ul.options li", has_text=text).first.click()
        self.settle()

    def number(self, name: str, value: float, unit: int = 0) -> None:
        box = self.part(f"controlnet_{name}_slider", unit).locator("input[type=number]")
        box.fill(str(value))
        box.blur()

    def preview(self, unit: int = 0) -> None:
        self.part("controlnet_trigger_preprocessor", unit).click()
        self.part("generated_image", unit).locator("img").first.wait_for()

    def values(self, unit: int = 0) -> dict[str, Any]:
        """What the unit's widgets show, by id: of hidden ones too."""
        prefix = f"{self.tab}_controlnet_ControlNet-{unit}_"
        return self.page.evaluate(READ_WIDGETS, prefix)

    def generate(self, prompt: str = "a red heart on a gray background") -> int:
        """Waits for a job of two steps to end; the number of pictures that are shown."""
        page = self.page
        page.locator("#txt2img_steps input[type=number]").fill("2")
        page.locator("#txt2img_steps input[type=number]").blur()
        page.locator(f"#{self.tab}_prompt textarea").fill(prompt)
        self.settle()
        # not by the time that is shown: a job as quick as the one before leaves it as it is
        with page.traffic.following(seconds=90):
            page.locator(f"#{self.tab}_generate").click()
        page.locator(f"#html_log_{self.tab} .time").first.wait_for()
        return (
            page.locator(f"#{self.tab}_gallery .thumbnail-item").count()
            or page.locator(f"#{self.tab}_gallery img").count()
        )

    def error(self) -> str:
        """What is said to be wrong: at a field of the panel, or in a message of gradio's."""
        said = self.page.locator(".cnet-standing:visible, .toast-body").first
        said.wait_for()
        return str(said.inner_text())

    def infotext(self) -> str:
        return str(self.page.locator(f"#html_info_{self.tab}").first.inner_text())

    def job_error(self) -> str:
        return str(self.page.locator(f"#html_log_{self.tab}").first.inner_text())


def _is_ours(message: Any) -> bool:
    """An error that the page reports; another WebUI asks the internet for fonts and forgets files of its own."""
    return message.type == "error" and not (OTHER and message.text.startswith("Failed to load resource"))


READ_WIDGETS = """(prefix) => {
    const found = {};
    for (const part of document.querySelectorAll(`[id^="${prefix}"]`)) {
        const name = part.id.slice(prefix.length);
        const radio = part.querySelector("input[type=radio]:checked");
        const field = part.querySelector("input:not([type=radio]):not([type=file]), textarea");
        if (!/checkbox$|slider$|radio$|dropdown$|weighting$|control_type$/.test(name)) continue;
        if (radio) found[name] = radio.value;
        else if (field) found[name] = field.type === "checkbox" ? field.checked : field.value;
    }
    return found;
}"""


class Pages:
    """Opened pages of a WebUI. The next test's page loads while a test runs: the WebUI's page takes seconds to build.

    Attributes:
        server: the WebUI's address.
    """

    def __init__(self, browser: Any, server: str) -> None:
        self.server = server
        self._browser = browser
        self._ahead: Any = None

    def take(self, viewport: dict[str, int] = WIDE, theme: str = "light", first_run: bool = False) -> Any:
        """A page that is there and still. Another view than the usual is opened at once, so is one with the tour."""
        if first_run or (viewport, theme) != (WIDE, "light"):
            return self._settled(self._open(viewport, theme, first_run))
        page = self._settled(self._ahead or self._open(viewport, theme))
        self._ahead = self._open(viewport, theme)
        return page

    def forget(self) -> None:
        """Close the page that is loading: for a test that restarts the server."""
        if self._ahead is not None:
            self._ahead.context.close()
            self._ahead = None

    def _open(self, viewport: dict[str, int], theme: str, first_run: bool = False) -> Any:
        context = self._browser.new_context(viewport=viewport)
        if not first_run:  # the tour of the demo model would fill a unit
            context.add_init_script("localStorage.setItem('first-run-closed', 'yes')")
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.problems = problems = list[str]()
        page.traffic = Traffic(page)
        # another WebUI has errors of its own: A1111's onCalcResolutionHires answers to no output
        page.on(
            "pageerror", lambda error: problems.append(str(error)) if not OTHER or _OWN in str(error.stack) else None
        )
        page.on("console", lambda message: problems.append(message.text) if _is_ours(message) else None)
        page.goto(f"{self.server}?__theme={theme}", wait_until="commit")
        return page

    @staticmethod
    def _settled(page: Any) -> Any:
        page.locator("#txt2img_controlnet #controlnet > .label-wrap").wait_for()
        page.traffic.settle()
        return page


@pytest.fixture(scope="package")
def pages(browser: Any, server: str) -> Iterator[Pages]:
    pages = Pages(browser, server)
    yield pages
    pages.forget()


@pytest.fixture
def page(pages: Pages, request: pytest.FixtureRequest) -> Iterator[Any]:
    """An open page; the test fails if the console reports an error, and leaves a screenshot where it fails."""
    opened = pages.take(**getattr(request, "param", {}))
    yield opened
    SHOTS.mkdir(exist_ok=True)
    opened.screenshot(path=SHOTS / f"{request.node.name[:80].replace('/', '_')}.png")
    opened.context.close()
    assert opened.problems == []


@pytest.fixture
def panel(page: Any) -> Panel:
    return Panel(page).open()


@pytest.fixture
def canny(panel: Panel) -> Panel:
    """A unit with the drawing and the demo's canny model."""
    panel.upload(DRAWING)
    panel.choose("controlnet_type_filter_radio", "Canny")
    return panel


def pixels(panel: Panel, name: str, unit: int = 0) -> np.ndarray:
    """The picture that a component of a unit shows."""
    return image_pixels(panel.page, panel.part(name, unit).locator("img").first)


def image_pixels(page: Any, image: Any) -> np.ndarray:
    """The pixels of an element, (h, w, 3)."""
    source = image.get_attribute("src")
    content = (
        base64.b64decode(source.partition(",")[2]) if source.startswith("data:") else page.request.get(source).body()
    )
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def serious_faults(page: Any, part: str) -> str:
    """What axe-core 4 finds in the part of a page that a selector names, a fault a line; "" for nothing serious."""
    axe = pytest.importorskip("axe_playwright_python")
    page.evaluate(Path(next(iter(axe.__path__)), "axe.min.js").read_text("utf-8"))
    found = page.evaluate(f"axe.run('{part}', {{resultTypes: ['violations']}})")
    serious = {
        (fault["id"], node["html"][:160])
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    }
    return "\n".join(map(str, sorted(serious)))
