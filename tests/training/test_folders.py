"""A folder of anything, as it lies on people's disks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_controlnet.training.check import check_data
from lib_controlnet.training.config import DataOptions
from lib_controlnet.training.readers import read_data

from .tiny import SIDE, config, draw, session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    for number in range(6):
        add(made / f"{number}.png", Image.fromarray(draw(number)[0]))
    return made


def add(path: Path, image: Image.Image, **how: Any) -> None:
    """With its caption."""
    image.save(path, **how)
    path.with_suffix(".txt").write_text(f"disc {path.stem}", "utf-8")


def options(folder: Path, **more: Any) -> DataOptions:
    return DataOptions(folder=folder, format="pictures", preprocessor="canny", resolution=SIDE, held_out=1, **more)


def test_every_mode_and_spelling_becomes_the_picture_that_it_shows(
    checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    shown = Image.fromarray(draw(7)[0])
    (folder / "nested" / "deep").mkdir(parents=True)
    add(folder / "rgba.png", shown.convert("RGBA"))
    add(folder / "palette.png", shown.quantize(64))
    add(folder / "upper.PNG", shown)
    add(folder / "cmyk.tif", shown.convert("CMYK"))
    add(folder / "nested" / "deep" / "one.webp", shown, lossless=True)
    add(folder / "wrong.jpg", shown, format="PNG")
    add(folder / "film.webp", shown, save_all=True, append_images=[Image.fromarray(draw(8)[0])], lossless=True)
    found = read_data(options(folder))
    assert found.problems == []
    by_name = {example.name: example for example in found.examples}
    assert len(by_name) == 13
    for name in ("rgba.png", "palette.png", "upper.PNG", "cmyk.tif", "one.webp", "wrong.jpg", "film.webp"):
        difference = np.abs(by_name[name].picture().astype(int) - np.array(shown)).max()
        assert difference <= (16 if name == "palette.png" else 1), name
    data: dict[str, Any] = {"format": "pictures", "held_out": 1}
    assert session(config(checkpoint, folder, tmp_path / "out", data=data)).prepare().pairs == 13


def test_what_is_not_read_is_said(folder: Path, tmp_path: Path) -> None:
    add(folder / "film.gif", Image.fromarray(draw(7)[0]))
    (folder / "phone.HEIC").write_bytes(b"?")
    (folder / "Thumbs.db").write_bytes(b"?")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.symlink(elsewhere, folder / "more")
    os.symlink(folder, folder / "round")
    report = check_data(read_data(options(folder)), options(folder))
    assert (report.pairs, report.problems) == (5, ())
    said = [warning for warning in report.warnings if "left out" in warning]
    assert len(said) == 1
    assert said[0].startswith("4 files or linked folders are left out (film.gif, more/, phone.HEIC, round/)")


def test_a_link_to_nothing_is_told(folder: Path, tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone.png", folder / "link.png")
    assert read_data(options(folder)).problems == ['"link.png" is a link to nothing']


def test_pictures_without_captions_are_one_problem_each_with_the_ways_out(folder: Path) -> None:
    for path in folder.glob("*.txt"):
        path.unlink()
    report = check_data(read_data(options(folder)), options(folder))
    assert len(report.problems) == 6
    with pytest.raises(Exception, match=r'captions = "none".*"interrogator"'):
        report.raise_problems()
    without = options(folder, captions="none")
    assert check_data(read_data(without), without).problems == ()


def test_a_caption_of_another_encoding_is_one_problem(folder: Path) -> None:
    (folder / "3.txt").write_bytes("Bäume".encode("latin-1"))
    report = check_data(read_data(options(folder)), options(folder))
    assert report.problems == ('the caption file "3.txt" is not UTF-8',)
    assert report.remedy == "correct the data"
