"""Another ControlNet in the same WebUI: nobody is taken for the other, and one button makes room."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from lib_controlnet.core.arguments import SLOTS
from tests.hosts.conftest import Host

from .test_panel_stands import texts


class Builtin:
    """The class of a host's own ControlNet script."""

    def title(self) -> str:
        return "ControlNet"


class Failing:
    def __init__(self) -> None:
        raise RuntimeError("not now")


@pytest.fixture
def extension(host: Host) -> Iterator[Any]:
    found = sys.modules["sd_controlnet_annotator"].extension  # type: ignore[attr-defined]
    found._other = None
    yield found
    found._other = None


def put(host: Host, monkeypatch: pytest.MonkeyPatch, kind: type, path: Path) -> None:
    """Another script, loaded before ours."""
    scripts = host.app.modules("scripts")
    other = SimpleNamespace(script_class=kind, path=str(path), basedir=str(path.parents[1]), module=None)
    monkeypatch.setattr(scripts, "scripts_data", [other, *scripts.scripts_data])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A built-in ControlNet, one extension that imports its package, and one that does not."""
    root = tmp_path / "extensions-builtin"
    for name, text in {
        "sd_forge_controlnet": "",
        "sd_forge_ipadapter": "from lib_controlnet import utils\n",
        "extra": "import os\n",
    }.items():
        (root / name / "scripts").mkdir(parents=True)
        (root / name / "scripts" / "controlnet.py").write_text(text)
    (root / "sd_forge_controlnet" / "lib_controlnet").mkdir()
    return root / "sd_forge_controlnet" / "scripts" / "controlnet.py"


def test_alone_ours_has_title_and_panel(host: Host, extension: Any) -> None:
    assert extension.title() == "ControlNet"
    assert host.app.modules("scripts").scripts_txt2img.script("ControlNet") is not None


def test_beside_another_it_says_so_and_leaves_it_its_places(
    host: Host, extension: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(host, monkeypatch, Builtin, folder)
    assert extension.title() == "ControlNet (extension)"
    script = SimpleNamespace()
    with gr.Blocks() as blocks:
        widgets = extension.panel(script, False)
    assert len(widgets) == SLOTS, "units of the API still come to ours"
    said = texts(blocks)
    assert "another ControlNet, which is on (sd_forge_controlnet)" in said
    assert "sd_forge_ipadapter will not load then" in said
    assert "extra" not in said
    assert script.infotext_fields == []
    app = SimpleNamespace(include_router=lambda *_: pytest.fail("the routes are the other one's"))
    monkeypatch.setattr(extension.training, "mount_routes", lambda *_: None)
    extension.mount_routes(None, app)


def test_the_button_switches_the_other_one_off_for_good(
    host: Host, extension: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(host, monkeypatch, Builtin, folder)
    shared = host.app.modules("shared")
    done: list[Any] = []
    opts = SimpleNamespace(disabled_extensions=["something"], save=done.append)
    monkeypatch.setattr(shared, "opts", opts)
    monkeypatch.setattr(shared, "config_filename", "config.json", raising=False)
    monkeypatch.setattr(shared.state, "request_restart", lambda: done.append("restart"), raising=False)
    sys.modules["sd_controlnet.hosts.webui.beside"].switch_off(extension.other())  # type: ignore[attr-defined]
    assert opts.disabled_extensions == ["something", "sd_forge_controlnet"]
    assert done == ["config.json", "restart"]


@pytest.mark.parametrize(
    ("kind", "name"), [(Failing, "controlnet.py"), (Builtin, "another_script.py")], ids=["fails", "another file"]
)
def test_strangers_are_no_controlnet(
    host: Host, extension: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: type, name: str
) -> None:
    put(host, monkeypatch, kind, folder.with_name(name))
    assert extension.title() == "ControlNet"


def test_ours_in_another_copy_is_no_other(host: Host, extension: Any, folder: Path, monkeypatch: Any) -> None:
    """ "Reload UI" executes the entry again: the class before it may still be known."""
    put(host, monkeypatch, type("Old", (Builtin,), {"sd_controlnet": True}), folder)
    assert extension.title() == "ControlNet"


def test_modules_are_not_found_in_our_folder(extension: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is an extension's; a clone that runs by itself stays where Python finds it."""
    leave = sys.modules["sd_controlnet.hosts.webui.extension"].leave_path  # type: ignore[attr-defined]
    ours, alone = tmp_path / "extensions" / "controlnet", tmp_path / "controlnet"
    ours.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(ours), str(alone), str(tmp_path), f"{ours}/", *sys.path])
    for root in (ours, alone):
        leave(root)
    assert sys.path[:2] == [str(alone), str(tmp_path)]
    assert not any(Path(entry) == ours for entry in sys.path)


def test_a_page_that_may_not_change_extensions_does_not(
    host: Host, extension: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--listen`: hosts let nobody switch extensions from the page, and neither do we."""
    put(host, monkeypatch, Builtin, folder)
    shared = host.app.modules("shared")
    monkeypatch.setattr(shared.cmd_opts, "disable_extension_access", True, raising=False)
    with gr.Blocks() as blocks:
        extension.panel(SimpleNamespace(), False)
    assert not any(isinstance(block, gr.Button) for block in blocks.blocks.values())
    assert "Whoever runs this WebUI" in texts(blocks)
    module = sys.modules["sd_controlnet.hosts.webui.beside"]
    with pytest.raises(Exception, match="cannot change extensions"):
        module.switch_off(extension.other())  # type: ignore[attr-defined]
