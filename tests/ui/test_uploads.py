"""Files by name: what the page uploaded is taken, nothing else of the server, whoever names it and however."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from PIL import Image

from lib_controlnet.core.arguments import FIELDS, FIRST_UNIT, units_from_args
from lib_controlnet.core.errors import ControlNetError, PreprocessorError, UnitError
from lib_controlnet.core.uploads import upload_folder, uploaded
from lib_controlnet.engine.presets import loads
from lib_controlnet.engine.services import PageServices, Services
from lib_controlnet.ui.embeddings import written
from lib_controlnet.ui.gradio_compat import files_input
from lib_controlnet.ui.presets import _content
from lib_controlnet.ui.uploads import uploads_only

SECRET = "s3cret-of-the-server"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of uploads, and beside it a file that nobody uploaded."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads" / "abc").mkdir(parents=True)
    (tmp_path / "uploads-not" / "abc").mkdir(parents=True)
    for place in ("uploads/abc", "uploads-not/abc", "."):
        (tmp_path / place / "a.png").write_text(SECRET)
    return tmp_path / "uploads"


def foreign(folder: Path) -> dict[str, str]:
    """Ways to name a file outside."""
    (folder / "link.png").symlink_to(folder.parent / "a.png")
    (folder / "inside").symlink_to(folder.parent)
    return {
        "absolute": str(folder.parent / "a.png"),
        "up": f"{folder}/abc/../../a.png",
        "name that begins alike": f"{folder}-not/abc/a.png",
        "link": str(folder / "link.png"),
        "linked folder": str(folder / "inside" / "a.png"),
        "folder": str(folder / "abc"),
        "the folder": str(folder),
        "missing": str(folder / "abc" / "none.png"),
        "system": "/etc/hostname",
        "relative": "a.png",
        "NUL": "a\0b",
        "long": "a" * 9000,
        "address": "http://127.0.0.1/a.png",
        "process": "/proc/self/environ",
    }


WAYS = ("absolute", "up", "name that begins alike", "link", "linked folder", "folder", "the folder", "missing",
        "system", "relative", "NUL", "long", "address", "process")  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_other_files_are_refused(folder: Path, way: str) -> None:
    name = foreign(folder)[way]
    with pytest.raises(UnitError, match="no file that was uploaded") as refusal:
        uploaded(name, "merge_images")
    assert SECRET not in str(refusal.value)


def test_uploads_are_taken(folder: Path) -> None:
    assert upload_folder() == folder
    assert uploaded(str(folder / "abc" / "a.png"), "images") == (folder / "abc" / "a.png").resolve()


def test_the_folder_is_gradios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    file: Any = gr.File()
    theirs = file.DEFAULT_TEMP_DIR if gr.__version__.startswith("3.") else file.GRADIO_CACHE
    assert Path(theirs) == upload_folder()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", ["merge_images", "batch_images", "embedding_files"])
@pytest.mark.parametrize("form", ["name", "names", "object", "dict"])
def test_api_callers_cannot_name_them_by_position(folder: Path, way: str, field: str, form: str) -> None:
    name = foreign(folder)[way]
    given: Any = {
        "name": name,
        "names": [name],
        "object": [type("File", (), {"name": name})()],
        "dict": [{"name": name, "is_file": True}],
    }
    values: dict[str, Any] = dict.fromkeys(FIELDS)
    mode = field.removesuffix("_images")
    values.update(enabled=True, preprocessor="none", model="any", input_mode=mode)
    values[field] = given[form]
    args = [None] * FIRST_UNIT + [values[name] for name in FIELDS]
    with pytest.raises(ControlNetError) as refusal:
        units_from_args(args, 1)
    assert SECRET not in str(refusal.value)


def test_by_position_uploads_are_taken(folder: Path) -> None:
    values: dict[str, Any] = dict.fromkeys(FIELDS)
    values.update(enabled=True, preprocessor="none", model="any", input_mode="merge")
    values["merge_images"] = [str(folder / "abc" / "a.png")]
    (unit,) = units_from_args([None] * FIRST_UNIT + [values[name] for name in FIELDS], 1)
    assert unit.images == ((folder / "abc" / "a.png").resolve(),)


def test_what_the_page_writes_of_a_picture_stands_for_it(folder: Path, services: PageServices) -> None:
    picture = Image.new("RGB", (8, 8), (200, 30, 60))
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    fields.update(enabled=True, preprocessor="clip_vision", model="any", image=picture, own_image=True)
    fields.update(resize_mode="Crop and Resize", input_mode="simple", resolution=-1, threshold_a=-1, threshold_b=-1)
    file = written(services, fields, 0, (64, 64))
    fields.update(image=None, embedding_files=[str(file)], uncond_image=picture)
    (unit,) = units_from_args([None] * FIRST_UNIT + [fields[name] for name in FIELDS], 1)
    assert unit.image is None
    assert torch.equal(unit.embeddings[0]["mean"], torch.tensor([[200.0, 30.0, 60.0]]))
    assert unit.uncond_image is not None
    assert unit.uncond_image.tolist()[0][0] == [200, 30, 60]
    with pytest.raises(PreprocessorError, match="makes a map"):
        written(services, {**fields, "image": picture, "preprocessor": "canny"}, 0, (64, 64))


@pytest.mark.parametrize("way", WAYS)
def test_widgets_refuse_before_gradio_copies(folder: Path, way: str) -> None:
    name = foreign(folder)[way]
    before = sorted(folder.rglob("*"))
    for widget in (files_input("Pictures"), uploads_only(gr.UploadButton("Import"))):
        for payload in _payloads(name):
            with pytest.raises(gr.Error, match="no file that was uploaded"):
                widget.preprocess(payload)
    assert sorted(folder.rglob("*")) == before


def _payloads(name: str) -> list[Any]:
    """As gradio 3's and gradio 4's pages send a file."""
    if gr.__version__.startswith("3."):
        one = {"name": name, "orig_name": "a.png", "data": None, "is_file": True, "size": 3}
        return [one, [one]]
    from gradio.data_classes import FileData, ListFiles  # type: ignore[attr-defined]

    return [FileData(path=name), ListFiles(root=[FileData(path=name)])]


def test_widgets_take_uploads(folder: Path) -> None:
    for payload in _payloads(str(folder / "abc" / "a.png")):
        (file,) = found if isinstance(found := files_input("Pictures").preprocess(payload), list) else [found]
        assert Path(getattr(file, "name", file)).read_text() == SECRET
    assert files_input("Pictures").preprocess(None) is None


@pytest.mark.parametrize("way", WAYS)
def test_an_import_of_a_preset_reads_uploads_alone(folder: Path, way: str) -> None:
    with pytest.raises(UnitError) as refusal:
        _content(foreign(folder)[way])
    assert SECRET not in str(refusal.value)


def test_an_import_has_an_end(folder: Path) -> None:
    (folder / "big.json").write_bytes(b" " * (2 << 20))
    with pytest.raises(UnitError, match="no preset"):
        _content(str(folder / "big.json"))


@pytest.mark.parametrize("content", [SECRET, "{" + SECRET, json.dumps({"x": SECRET}), json.dumps([SECRET]), "{}",
                                     f"root:x:0:0:{SECRET}", json.dumps({"unit": SECRET})])  # fmt: skip
def test_what_is_no_preset_is_not_told(content: str) -> None:
    with pytest.raises(UnitError) as refusal:
        loads(content)
    assert SECRET not in str(refusal.value)


def test_every_input_of_files_on_the_page_is_guarded(services: Services, script: Any) -> None:
    """Whatever widget the panel will have: it takes files by name only through the check."""
    from lib_controlnet.ui.panel import build

    with gr.Blocks() as page:
        build(services, "txt2img", False, script)  # type: ignore[arg-type]
    takes_files = [x for x in page.blocks.values() if isinstance(x, (gr.File, gr.UploadButton, gr.Image))]
    inputs = {id(x) for dependency in _inputs(page) for x in dependency}
    assert takes_files
    for widget in takes_files:
        if id(widget) in inputs:
            assert widget.preprocess.__module__ == "lib_controlnet.ui.uploads", widget.elem_id


def _inputs(page: gr.Blocks) -> list[list[Any]]:
    if gr.__version__.startswith("3."):
        return [[page.blocks[number] for number in dependency["inputs"]] for dependency in page.dependencies]
    return [list(function.inputs) for function in page.fns.values()]  # type: ignore[attr-defined]
