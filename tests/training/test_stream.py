"""A data set that is opened window by window."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lib_controlnet.training import shards
from lib_controlnet.training.disk_table import DiskTable
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.examples import Example, Reading
from lib_controlnet.training.jobs import TrainingJobs
from lib_controlnet.training.parts import Part
from lib_controlnet.training.records import read_log
from lib_controlnet.training.state import load_state
from lib_controlnet.training.store import Store
from lib_controlnet.training.stream import Place, Stream

from .tiny import Memory, config, draw, session


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def make_shards(folder: Path, count: int, each: int = 4, broken: tuple[int, ...] = ()) -> Path:
    """`count` pairs; of those `broken` the pixels end too early, which no header says."""
    folder.mkdir()
    for first in range(0, count, each):
        with tarfile.open(folder / f"{first:05d}.tar", "w") as archive:
            for number in range(first, min(first + each, count)):
                picture, edges = (png(one) for one in draw(number))
                picture = picture[: len(picture) // 2] if number in broken else picture
                text = f"disc {number}".encode()
                for suffix, content in (("png", picture), ("hint.png", edges), ("txt", text)):
                    member = tarfile.TarInfo(f"{number:05d}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


def streamed(checkpoint: Path, data: Path, out: Path, **train: Any) -> Any:
    return config(checkpoint, data, out, data={"format": "webdataset", "stream": 5, "held_out": 1, "pass_over": 0.25},
                  train={"steps": 10, "average_decay": 0.0, **train})  # fmt: skip


def same(one: Path, other: Path) -> bool:
    states = [load_state(folder) for folder in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*(state["trained"] for state in states if state), strict=True))


def windows(out: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(out) if line["event"] == "window"]


def names(stream: Stream, count: int) -> list[list[str]]:
    place, found = Place(), []
    for _ in range(count):
        window = stream.window(place)
        found.append([example.name for example in window.reading.examples])
        place = window.following
    return found


def parts(sizes: list[int], opened: list[int]) -> Any:
    def read(number: int, size: int) -> Reading:
        opened.append(number)
        return Reading([Example(f"{number}.{index}", ("",), None, None) for index in range(size)])  # type: ignore[arg-type]

    return lambda: (Part(lambda n=number, s=size: read(n, s)) for number, size in enumerate(sizes))


def test_windows_go_over_parts_and_begin_anew_at_the_end() -> None:
    opened: list[int] = []
    found = names(Stream(parts([3, 0, 4], opened), 2), 5)
    assert found == [["0.0", "0.1"], ["0.2", "2.0"], ["2.1", "2.2"], ["2.3"], ["0.0", "0.1"]]
    assert opened == [0, 1, 2, 0], "each part once an epoch"
    assert names(Stream(parts([3, 0, 4], []), 2, count=3), 3) == [["0.0", "0.1"], ["0.2"], ["0.0", "0.1"]]


def test_a_window_is_found_again_without_those_before_it() -> None:
    stream = Stream(parts([3, 0, 4], []), 2)
    third = stream.window(stream.window(stream.window(Place()).following).following)
    opened: list[int] = []
    again = Stream(parts([3, 0, 4], opened), 2).window(third.place)
    assert (again.place, again.following) == (third.place, third.following)
    assert [e.name for e in again.reading.examples] == [e.name for e in third.reading.examples]
    assert opened == [2]


def test_nothing_behind_the_window_is_opened(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_shards(tmp_path / "data", 16)
    opened: list[str] = []
    right = shards._Shard
    monkeypatch.setattr(shards, "_Shard", lambda path: opened.append(path.name) or right(path))
    session(streamed(checkpoint, data, tmp_path / "out", steps=1)).run()
    assert set(opened) == {"00000.tar", "00004.tar"}


def test_a_stopped_stream_goes_on_to_the_bit(checkpoint: Path, tmp_path: Path) -> None:
    """12 pairs in windows of 5, one of them held out: 2 + 3 + 1 steps of 2 an epoch."""
    data = make_shards(tmp_path / "data", 12)
    for stop in (3, 6):
        session(streamed(checkpoint, data, tmp_path / "cut"), Memory(stop_after=stop), resume=True).run()
    again = Memory()
    assert session(streamed(checkpoint, data, tmp_path / "cut"), again, resume=True).run().steps == 10
    session(streamed(checkpoint, data, tmp_path / "whole")).run()
    assert same(tmp_path / "cut", tmp_path / "whole")
    told = windows(tmp_path / "whole")
    assert [(line["window"], line["epoch"], line["pairs"]) for line in told] == [
        (0, 0, 5), (1, 0, 5), (2, 0, 2), (3, 1, 5), (4, 1, 5)
    ]  # fmt: skip
    assert "pictures" not in [what for what, _, _ in again.stages], "all was encoded"
    saved = load_state(tmp_path / "whole")
    assert saved is not None
    assert saved["marks"]["pairs"] == 12


def test_bad_pairs_are_named_and_passed_over(checkpoint: Path, tmp_path: Path) -> None:
    data = make_shards(tmp_path / "data", 12, broken=(6,))
    watcher = Memory()
    assert session(streamed(checkpoint, data, tmp_path / "out"), watcher).run().steps == 10
    said = [sentence for sentence in watcher.said if "passed over" in sentence]
    assert said[0].startswith('window 2: 1 of 5 pairs are passed over: "00004.tar/00006" cannot be read')
    assert said[0] in windows(tmp_path / "out")[1]["says"], "the log has it too"


def test_a_last_window_that_cannot_be_read_is_left_behind(checkpoint: Path, tmp_path: Path) -> None:
    """Eleven pairs make a third window of one."""
    data, out = make_shards(tmp_path / "data", 11, broken=(10,)), tmp_path / "out"
    assert session(streamed(checkpoint, data, out)).run().steps == 10
    said = [line["says"] for line in windows(out) if line["window"] == 2]
    assert len(said) == 1
    assert "00010" in said[0][0]


def test_too_many_bad_pairs_end_it_with_all_saved(checkpoint: Path, tmp_path: Path) -> None:
    data = make_shards(tmp_path / "data", 12, broken=(6, 7))
    with pytest.raises(TrainingError, match="2 of 5 pairs in window 2 of the data cannot be used"):
        session(streamed(checkpoint, data, tmp_path / "out")).run()
    saved = load_state(tmp_path / "out")
    assert saved is not None
    assert saved["step"] == 2
    make_shards(tmp_path / "right", 12)
    for path in (tmp_path / "right").iterdir():
        path.replace(data / path.name)
    assert session(streamed(checkpoint, data, tmp_path / "out"), resume=True).run().steps == 10
    # how many pictures are encoded at once shows in the last bit of a latent
    shutil.copytree(tmp_path / "out" / "cache", tmp_path / "whole" / "cache")
    session(streamed(checkpoint, data, tmp_path / "whole")).run()
    assert same(tmp_path / "out", tmp_path / "whole")


def test_a_store_knows_what_others_wrote_damaged_and_removed(tmp_path: Path) -> None:
    one, other = Store(tmp_path, "latents", 0), Store(tmp_path, "latents", 1)
    for number, store in enumerate((one, other, one)):
        store.add(f"{number}", torch.full((2,), float(number)), "it")
        store.flush()
    one.look()
    assert [one[f"{number}"].tolist() for number in range(3)] == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    assert len(one) == 3
    (tmp_path / "latents-1-00000.safetensors").write_bytes(b"cut")
    (tmp_path / "latents-0-00001.safetensors").unlink()
    again = Store(tmp_path, "latents", 0)
    assert [f"{number}" in again for number in range(3)] == [True, False, False]
    assert not (tmp_path / "latents-1-00000.safetensors").exists()


def test_a_damaged_table_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "table.db"
    path.write_bytes(json.dumps(["no", "table"]).encode() * 100)
    table = DiskTable(path)
    assert table.get("a") is None
    table.put("a", "b")
    table.commit()
    assert DiskTable(path).get("a") == "b"


def test_a_page_looks_at_the_first_window_only(checkpoint: Path, tmp_path: Path) -> None:
    data = make_shards(tmp_path / "data", 12)
    with tarfile.open(data / "00000.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("00003x.txt"))
    (data / "00008.tar").write_bytes(b"cut")
    made = streamed(checkpoint, data, tmp_path / "out").as_json()
    tables = {part: {key: value for key, value in of.items() if value is not None} for part, of in made.items()}
    report, sheet = TrainingJobs(tmp_path).check(tables)
    assert (report.pairs, report.problems) == (4, ())
    assert [warning for warning in report.warnings if "passed over" in warning] == [
        '"00000.tar/00003x" has no picture: passed over'
    ]
    assert sheet is not None
