"""The embedded host's settings file: saved whole, put aside when damaged, wrong types named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from standalone import App

DAMAGED = (b"", b"{", b'{"a": 1', b"[1, 2]", b"null", b'{"a":' * 100_000, b"\xff\xfe", b"\0" * 100)


def fresh(app: App, path: Path) -> Any:
    """New options with the host's own settings, loaded from `path`."""
    templates = app.modules("shared_options")
    options = app.modules("options").Options(templates.options_templates(), templates.RESTRICTED)
    options.load(str(path))
    return options


def test_settings_come_back(app: App, tmp_path: Path) -> None:
    options = fresh(app, tmp_path / "config.json")
    options.jpeg_quality = 55
    options.data["of an extension not loaded yet"] = {"x": ["é 🦊", "\udce9"]}
    options.save(str(tmp_path / "config.json"))
    again = fresh(app, tmp_path / "config.json")
    assert again.jpeg_quality == 55
    assert again.data == options.data
    assert again.problems == []
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_put_aside_and_said(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    options = fresh(app, path)
    aside = tmp_path / "config.json.damaged-1"
    assert aside.read_bytes() == content
    (problem,) = options.problems
    assert str(aside) in problem
    assert problem in capsys.readouterr().err
    options.save(str(path))
    assert fresh(app, path).problems == []
    assert aside.read_bytes() == content


WRONG = {
    "jpeg_quality": ("80", [80], {}, None, True, float("nan"), float("inf")),
    "samples_save": ("true", 1, None, []),
    "samples_format": (7, None, ["png"], True),
    "outdir_samples": (5, None, {}),
    "disabled_extensions": ("x", None, 3),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_wrong_types_give_way_to_the_default_and_are_named(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({key: value, "n_rows": 2.0}))
    options = fresh(app, path)
    assert options.data[key] == options.data_labels[key].default
    assert options.n_rows == 2, "numbers of both kinds stand for one another"
    (problem,) = options.problems
    assert problem.startswith(f"the setting {key} is ")
    assert problem in capsys.readouterr().err
    assert json.loads(path.read_text())[key] == value or value != value, "the file is as it was"


def test_a_save_that_fails_leaves_the_old_file(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    options = fresh(app, path)
    options.save(str(path))
    before = path.read_text()

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    options.jpeg_quality = 1
    with pytest.raises(OSError, match="No space"):
        options.save(str(path))
    assert path.read_text() == before


def test_the_settings_page_shows_what_was_wrong(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.modules("shared").opts, "problems", ["the file <x> cannot be read"])
    page = app.modules("ui_settings").UiSettings().create_ui()
    shown = [str(block.value) for block in page.blocks.values() if getattr(block, "elem_id", "") == "settings_problems"]
    assert shown == ["<p>the file &lt;x&gt; cannot be read.</p>"]
