"""`ui()` of our script gives its slots whatever the settings and the model folders hold: else hosts drop API units."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from lib_controlnet.core.arguments import SLOTS
from lib_controlnet.core.settings import OPTIONS
from tests.hosts.conftest import Host, pixels, unit

ODD = (7, -3, 10**400, math.nan, math.inf, "x", "\udce9", [], ["a"], {}, None, object(), "a\0b", "", "9" * 5000)


@pytest.fixture
def options(host: Host) -> Iterator[dict[str, Any]]:
    """The host's options, put back afterwards."""
    data = host.app.modules("shared").opts.data
    before = dict(data)
    yield data
    data.clear()
    data.update(before)


def built(host: Host, is_img2img: bool = False) -> tuple[list[Any], gr.Blocks]:
    scripts = host.app.modules("scripts")
    script = (scripts.scripts_img2img if is_img2img else scripts.scripts_txt2img).script("ControlNet")
    with gr.Blocks() as blocks:
        return script.ui(is_img2img), blocks


def texts(blocks: gr.Blocks) -> str:
    """All HTML of a page that is shown."""
    return " ".join(str(b.value) for b in blocks.blocks.values() if isinstance(b, gr.HTML) and b.visible)


@pytest.mark.parametrize(
    "value", ODD, ids=lambda value: type(value).__name__ + repr(value)[:8].encode("ascii", "replace").decode()
)
def test_no_setting_makes_the_panel_fail_or_a_unit_be_ignored(host: Host, options: dict[str, Any], value: Any) -> None:
    options.update(dict.fromkeys(OPTIONS, value))
    widgets, blocks = built(host)
    assert len(widgets) > SLOTS, "a whole panel"
    shown = texts(blocks)
    for key in ("controlnet_download_weights", *["control_net_models_path"] * (not isinstance(value, str))):
        assert f"the setting {key} is " in shown
    plain = host.txt2img()
    assert np.abs(pixels(host.txt2img(unit())).astype(int) - pixels(plain)).mean() > 0.5


@pytest.mark.parametrize("is_img2img", [False, True])
def test_a_panel_that_cannot_be_made_stops_enabled_units_with_the_reason(
    host: Host, monkeypatch: pytest.MonkeyPatch, is_img2img: bool
) -> None:
    panel = sys.modules["sd_controlnet.ui.panel"]

    def broken(*_arguments: Any) -> None:
        gr.Textbox("half a panel", elem_id="half")
        raise RuntimeError("gradio <b>changed</b>")

    monkeypatch.setattr(panel, "_options", broken)
    widgets, blocks = built(host, is_img2img)
    assert len(widgets) == SLOTS
    assert "RuntimeError: gradio &lt;b&gt;changed&lt;/b&gt;" in texts(blocks)
    groups = [block for block in blocks.children if not isinstance(block, (gr.HTML, gr.State))]
    assert groups
    assert not any(block.visible for block in groups), "no half of a panel is shown"
    run, other = (host.img2img, host.txt2img) if is_img2img else (host.txt2img, host.img2img)
    try:
        with pytest.raises(Exception, match=r"panel could not be made.*gradio"):
            run(unit())
        run(unit(enabled=False))
        other(unit())
    finally:
        monkeypatch.undo()
        built(host, is_img2img)
    assert run(unit())


def test_a_folder_full_of_what_is_no_model_costs_nothing(
    host: Host, files: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / os.fsdecode(b"caf\xe9.safetensors")).write_bytes(b"x")
    options["control_net_models_path"] = str(tmp_path)
    assert len(built(host)[0]) > SLOTS
    assert host.txt2img(unit())
