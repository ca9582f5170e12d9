"""Which files of a folder are a batch's pictures, in which order, and what their results are called."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_controlnet.core.batch import Batch
from lib_controlnet.core.errors import UnitError
from lib_controlnet.core.folders import picture_folder, result_names
from lib_controlnet.core.modes import InputMode
from lib_controlnet.core.units import ControlNetUnit


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize(
    "ordered",
    [
        [f"{i}.png" for i in range(1, 12)],
        [f"{i:02}.png" for i in range(1, 12)],
        ["a1.png", "A2.png", "a10.png", "b.png"],
        ["frame-2-b.jpg", "frame-10-a.png"],
        ["1.png", "²3.png", "²20.png"],
        ["001.png", "01.png", "1.png"],
    ],
)
def test_pictures_are_in_the_hosts_order(tmp_path: Path, ordered: list[str]) -> None:
    write(tmp_path, *ordered[::-1])
    assert [path.name for path in picture_folder(tmp_path).pictures] == ordered


def test_junk_is_passed_over_and_said(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "._a.png", ".hidden.jpg", "Thumbs.db", "desktop.ini", "notes.txt", "b.PNG", "c.png.part")
    (tmp_path / "folder.png").mkdir()
    folder = picture_folder(tmp_path)
    assert [path.name for path in folder.pictures] == ["a.png", "b.PNG"]
    assert "6 files are no pictures and were passed over: ._a.png, .hidden.jpg, " in folder.note
    assert folder.note.endswith(", ...")
    (tmp_path / "clean").mkdir()
    write(tmp_path / "clean", "a.png")
    assert picture_folder(tmp_path / "clean").note == ""


@pytest.mark.parametrize(
    ("sources", "copies", "names"),
    [
        (["a.png", "b.jpg"], 2, ["a", "b"]),
        (["a.png", "a.jpg", "b.png"], 1, ["a.png", "a.jpg", "b"]),
        (["a.png", "A.jpg"], 1, ["a.png", "A.jpg"]),
        (["a.png", "a-1.png"], 1, ["a", "a-1"]),
        (["a.png", "a-1.png"], 2, ["a.png", "a-1.png"]),
        (["a.png", "a.png"], 1, ["00000-a.png", "00001-a.png"]),
    ],
)
def test_results_are_called_as_their_sources(sources: list[str], copies: int, names: list[str]) -> None:
    assert result_names(sources, copies) == names


NAMES = st.from_regex(r"[aA](-[12])?\.(png|jpg|PNG)(\.png)?", fullmatch=True)


@given(st.lists(NAMES, max_size=8), st.integers(1, 3))
def test_no_result_overwrites_another(sources: list[str], copies: int) -> None:
    results = [f"{name}-{copy}" if copy else name for name in result_names(sources, copies) for copy in range(copies)]
    assert len({result.casefold() for result in results}) == len(sources) * copies


def batch_of(folder: Path) -> Batch:
    return Batch([ControlNetUnit(index=2, enabled=True, input_mode=InputMode.batch, batch_dir=str(folder))])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.avif", "a.tiff", "a.webp", "a.gif", "a.bmp"])
@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"\xff\xd8\xff\xe0" + b"\0" * 40]
)
def test_a_damaged_picture_is_named_with_its_reason(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnitError) as refusal:
        batch_of(tmp_path).turn(0)
    assert f'"{name}" of the batch cannot be read' in str(refusal.value)
    assert refusal.value.unit == 2
    assert refusal.value.found


def test_what_is_no_file_is_named_and_moves_no_other_picture_up(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "3.png")
    (tmp_path / "1.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "2.png")
    batch = batch_of(tmp_path)
    for turn in (0, 1):
        with pytest.raises(UnitError, match=rf'"{turn + 1}.png".*cannot be read'):
            batch.turn(turn)
    assert batch.turn(2)[0].image is not None


@pytest.mark.parametrize("folder", ["", "/no such folder", "a\0b", "\udce9"])
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, folder: str) -> None:
    unit = ControlNetUnit(index=1, enabled=True, input_mode=InputMode.batch, batch_dir=folder or str(tmp_path))
    with pytest.raises(UnitError) as refusal:
        Batch([unit])
    assert refusal.value.field == "batch_dir"
    assert refusal.value.unit == 1


def test_one_turn_is_a_batch_of_its_own(tmp_path: Path) -> None:
    for shade, name in enumerate(("a.png", "a.jpg", "b.png")):
        Image.fromarray(np.full((8, 8, 3), 100 * shade, np.uint8)).save(tmp_path / name)
    batch = batch_of(tmp_path)
    one = batch.only(2)
    assert (one.length, one.names(1), batch.names(1)) == (1, ["b"], ["a.jpg", "a.png", "b"])
    image = one.turn(0)[0].image
    assert image is not None
    assert image.max() == 200
