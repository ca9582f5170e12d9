"""Captions that the host's interrogator writes before a training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lib_controlnet.core.errors import HostError
from lib_controlnet.training.captions import Captioning
from lib_controlnet.training.check import check_data
from lib_controlnet.training.config import DataOptions
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.jobs import TrainingJobs
from lib_controlnet.training.pictures import Pixels
from lib_controlnet.training.readers import read_data

from .tiny import SIDE, make_pairs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures, of which the first has a caption."""
    make_pairs(tmp_path / "pairs")
    shutil.copytree(tmp_path / "pairs" / "target", tmp_path / "plain")
    (tmp_path / "plain" / "0.txt").write_text("mine", "utf-8")
    return tmp_path / "plain"


def options(folder: Path, captions: str) -> DataOptions:
    more = {"format": "pictures", "preprocessor": "canny", "captions": captions}
    return DataOptions(folder=folder, resolution=SIDE, held_out=2, **more)  # type: ignore[arg-type]


class Interrogator:
    def __init__(self, fails_at: int = 0) -> None:
        self.seen, self.fails_at = 0, fails_at

    def __call__(self, picture: Pixels) -> str:
        self.seen += 1
        if self.seen == self.fails_at:
            raise HostError("the interrogator failed")
        return f" a picture of {picture.shape[1]} pixels "


def caption(folder: Path, interrogator: Interrogator) -> tuple[Captioning, list[str]]:
    """The captioning of what lacks, ended, and what it called in the end."""
    called: list[str] = []
    missing = read_data(options(folder, "interrogator")).to_caption
    writing = Captioning(missing, ".txt", interrogator, lambda: called.append("then"))
    writing.run()
    return writing, called


def test_only_what_lacks_is_written(pictures: Path) -> None:
    interrogator = Interrogator()
    writing, called = caption(pictures, interrogator)
    assert (writing.done, writing.error, called, interrogator.seen) == (5, "", ["then"], 5)
    assert (pictures / "0.txt").read_text("utf-8") == "mine"
    reading = read_data(options(pictures, "interrogator"))
    assert reading.to_caption == []
    assert {example.captions[0] for example in reading.examples} == {"mine", f"a picture of {SIDE} pixels"}


def test_after_an_error_it_goes_on_where_it_was(pictures: Path) -> None:
    writing, called = caption(pictures, Interrogator(fails_at=3))
    assert "the interrogator failed" in writing.error
    assert (writing.done, called) == (2, [])
    again = Interrogator()
    assert caption(pictures, again)[1] == ["then"]
    assert again.seen == 3
    assert not list(pictures.glob(".*"))


def test_it_stops_between_two_pictures(pictures: Path) -> None:
    writing = Captioning(
        read_data(options(pictures, "interrogator")).to_caption, ".txt", Interrogator(), lambda: pytest.fail("went on")
    )
    writing.stop()
    writing.run()
    assert (writing.stopped, writing.done) == (True, 0)


def test_the_check_says_what_is_to_come(pictures: Path) -> None:
    data = options(pictures, "interrogator")
    report = check_data(read_data(data), data)
    assert report.problems == ()
    assert "5 captions are missing; the interrogator is to write them" in report.warnings


def test_without_a_webui_the_error_says_what_is_needed(pictures: Path, checkpoint: Path) -> None:
    tables = {
        "base": {"checkpoint": str(checkpoint)},
        "data": {"folder": str(pictures), "format": "pictures", "preprocessor": "canny", "captions": "interrogator"},
        "train": {"steps": 1},
        "output": {"folder": str(pictures / "out"), "name": "made"},
    }
    with pytest.raises(TrainingError, match="5 pictures have no caption file, and there is no WebUI here"):
        TrainingJobs(ROOT).start(tables)


def test_none_reads_no_captions_and_trains_without(pictures: Path) -> None:
    data = options(pictures, "none")
    reading = read_data(data)
    assert {example.captions for example in reading.examples} == {("",)}
    assert check_data(reading, data).problems == ()


def test_only_files_beside_pictures_can_be_written(pictures: Path) -> None:
    with pytest.raises(TrainingError, match=r"data[.]format pictures or kohya"):
        DataOptions(folder=pictures, captions="interrogator")
