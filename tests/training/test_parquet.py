"""Data sets in Parquet files, written by pyarrow as other tools do."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lib_controlnet.training.check import check_data
from lib_controlnet.training.config import DataOptions
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.readers import read_data

from .test_stream import png, streamed
from .tiny import SIDE, Memory, draw, session

pa: Any = pytest.importorskip("pyarrow", reason="requirements-dev.txt")
pq: Any = pytest.importorskip("pyarrow.parquet")


def write(folder: Path, count: int, each: int = 1000, texts: dict[int, Any] | None = None, **how: Any) -> Path:
    """`count` pairs, `each` a row group."""
    folder.mkdir()
    rows = []
    for number in range(count):
        picture, edges = (png(one) for one in draw(number))
        text = (texts or {}).get(number, f"disc {number}")
        rows.append({"image": {"bytes": picture, "path": None}, "conditioning_image": {"bytes": edges}, "text": text})
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000.parquet", row_group_size=each, **how)
    return folder


def options(folder: Path) -> DataOptions:
    return DataOptions(folder=folder, format="parquet", resolution=SIDE)


@pytest.mark.parametrize("each", [1000, 30])
def test_every_cell_is_its_own_picture_in_any_order(each: int, tmp_path: Path) -> None:
    """150 rows are more than what is kept in memory, also within one row group."""
    found = read_data(options(write(tmp_path / "data", 150, each)))
    assert [example.captions for example in found.examples] == [(f"disc {number}",) for number in range(150)]
    for number in (0, 149, 3, 70, 71, 20, 0, 140):
        example = found.examples[number]
        assert example.hint is not None
        assert [(one() == wanted).all() for one, wanted in zip((example.picture, example.hint), draw(number),
                                                                strict=True)] == [True, True]  # fmt: skip


def test_a_pass_nearly_in_order_opens_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_data(options(write(tmp_path / "data", 150, 75)))
    opened: list[Any] = []
    right = pq.ParquetFile

    def counted(*given: Any, **how: Any) -> Any:
        opened.append(given)
        return right(*given, **how)

    monkeypatch.setattr(pq, "ParquetFile", counted)
    as_threads_come = sorted(range(150), key=lambda number: number + 8 * (number % 2))
    facts = {found.examples[number].picture.facts().fingerprint for number in as_threads_come}
    assert len(facts) == 150
    assert len(opened) == 2


def test_threads_share_a_file(tmp_path: Path) -> None:
    found = read_data(options(write(tmp_path / "data", 150, 75)))
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda example: example.picture(), found.examples))
    assert all((picture == draw(number)[0]).all() for number, picture in enumerate(pictures))


def test_a_file_of_one_row_group_is_not_read_into_memory(tmp_path: Path) -> None:
    rows = [{"image": os.urandom(50_000), "text": str(number)} for number in range(400)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet", write_batch_size=1, use_dictionary=False)
    assert pq.ParquetFile(tmp_path / "train.parquet").num_row_groups == 1
    found = read_data(DataOptions(folder=tmp_path, format="parquet", resolution=SIDE, preprocessor="canny"))
    before, most = pa.total_allocated_bytes(), 0
    for example, row in zip(found.examples, rows, strict=True):
        assert example.picture._opened().read() == row["image"]  # type: ignore[attr-defined]
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 400 * 50_000 / 2


def test_a_caption_that_is_no_text_is_one_problem(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "data", 6, texts={number: ([] if number == 4 else [f"disc {number}"]) for number in range(6)}
    )
    found = read_data(options(folder))
    assert [example.captions[0] for example in found.examples] == ["disc 0", "disc 1", "disc 2", "disc 3", "disc 5"]
    assert len(found.problems) == 1
    assert "/4" in found.problems[0]


def test_a_damaged_page_is_the_pairs_problem(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 60, 20, write_batch_size=1, use_dictionary=False)
    path = folder / "train-00000.parquet"
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[start : start + 2000] = bytes(2000)
    path.write_bytes(content)
    found = read_data(options(folder))
    problems = check_data(found, options(folder)).problems
    assert problems
    assert all("train-00000.parquet/1/" in problem for problem in problems)
    with pytest.raises(TrainingError, match="cannot be read"):
        found.examples[20].picture()


def test_examples_go_to_another_process(tmp_path: Path) -> None:
    found = read_data(options(write(tmp_path / "data", 40)))
    found.examples[0].picture()
    sent = pickle.dumps(found.examples)
    assert len(sent) < 40_000, "no picture goes with them"
    assert (pickle.loads(sent)[7].picture() == draw(7)[0]).all()


def test_a_stream_of_row_groups_trains(checkpoint: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data", 12, 4)
    settings = streamed(checkpoint, data, tmp_path / "out")
    settings = type(settings)(**{**vars(settings), "data": DataOptions(**{**vars(settings.data), "format": "parquet"})})
    watcher = Memory()
    assert session(settings, watcher).run().steps == 10
    assert watcher.said == []
