"""What README and docs say: examples run as printed, tables are the code's, links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib_controlnet.core.model_catalogue import MODELS
from lib_controlnet.ui.settings import register
from preload import ACCEPTED, HONOURED
from tests.standalone.test_server import Server, serving

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "models").rglob("README.md")),
]
DEMO = ROOT / "models" / "demo"


def examples(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


PYTHON = [(page, place) for page in ("README.md", "docs/api.md") for place in range(len(examples(page, "python")))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`python launch.py --nowebui` with the demo model, on which training is allowed."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "data").mkdir()
    (folder / "data" / "config.json").write_text('{"controlnet_allow_training": true}', "utf-8")
    with serving(folder, "--nowebui") as found:
        yield found


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples read, in which they may write."""
    (tmp_path / "models" / "demo").mkdir(parents=True)
    shutil.copy(DEMO / "drawing.png", tmp_path / "models" / "demo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def here(example: str, server: Server) -> str:
    assert "127.0.0.1:7860" in example
    return example.replace("127.0.0.1:7860", f"127.0.0.1:{server.port}")


@pytest.mark.parametrize(("page", "place"), PYTHON)
def test_examples_in_python_run_as_printed(server: Server, checkout: Path, page: str, place: int) -> None:
    names: dict[str, Any] = {}
    exec(compile(here(examples(page, "python")[place], server), f"{page}, example {place}", "exec"), names)
    if "images" in names:
        assert len(names["images"]) == 2
    if "answer" in names and isinstance(names["answer"], dict):
        assert "detail" not in names["answer"]


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="needs bash and curl")
@pytest.mark.parametrize("place", range(len(examples("docs/api.md", "bash"))))
def test_examples_in_the_shell_run_as_printed(server: Server, checkout: Path, place: int) -> None:
    script = here(examples("docs/api.md", "bash")[place], server).replace("curl -s", "curl -s --fail-with-body")
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_route_has_an_example(server: Server) -> None:
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    _, described = server.ask("/openapi.json")
    routes = set(re.findall(r'"(/controlnet/[a-z_]+)"', described))
    assert len(routes) > 7
    assert {route for route in routes if route not in text.replace("{server}", "/controlnet")} == set()


def test_every_setting_and_flag_is_told() -> None:
    told = re.findall(r"^\| `([a-z_]+)` \| (.*?) \| (.*?) \|", (ROOT / "docs" / "settings.md").read_text("utf-8"), re.M)
    options: dict[str, Any] = {}

    class Option:
        def __init__(self, default: Any, label: str, *_: Any, **_more: Any) -> None:
            self.default, self.label = default, label

        def needs_reload_ui(self) -> Option:
            return self

    register(SimpleNamespace(OptionInfo=Option, opts=SimpleNamespace(add_option=options.__setitem__)), None)
    said = {True: "on", False: "off", "": "empty"}
    expected = [
        (key, one.label, said[one.default] if isinstance(one.default, bool) or one.default == "" else str(one.default))
        for key, one in options.items()
    ]
    assert [(key, label, default.strip("`")) for key, label, default in told] == expected
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert all(f"`{flag}" in text for flag in (*HONOURED, *ACCEPTED))


def test_what_to_get_first_is_what_the_page_offers() -> None:
    told = re.findall(
        r"^\| (.*?) \| `(.*?)` \| (.*?) \| (\d+) MB \| (.*?) \|$", (ROOT / "docs" / "start.md").read_text("utf-8"), re.M
    )
    assert [(name, base, int(size), licence) for _, name, base, size, licence in told] == [
        (model.name, model.base, round(model.size / 1e6), model.licence) for model in MODELS
    ]
    for (types, *_), model in zip(told, MODELS, strict=True):
        assert types == ", ".join(model.control_types) or "Union" in model.family
    unchecked = (ROOT / "docs" / "start.md").read_text("utf-8").partition("checked against the hub's record alone:")[2]
    assert re.findall(r"`(.*?)`", unchecked.partition(".\n\n")[0]) == [one.name for one in MODELS if not one.sha256]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        aimed = (page.parent / file) if file else page
        assert aimed.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", aimed.read_text("utf-8"), re.M)
            names = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in names, f"{page.name}: {target}"


def test_commands_that_are_named_exist() -> None:
    known = set(re.findall(r'"([a-z-]+)": Command\(', (ROOT / "launch.py").read_text("utf-8")))
    assert len(known) > 7
    for page in PAGES:
        for name in re.findall(r"python launch\.py ([a-z][a-z-]+)", page.read_text("utf-8")):
            assert name in known, f"{page.name}: {name}"
