"""What people's folders hold: deep maps, odd text, tables and shards of other tools."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lib_controlnet.training.chance import Order, rows_of
from lib_controlnet.training.check import check_data, split
from lib_controlnet.training.config import DataOptions
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.examples import Remembered, picture_file
from lib_controlnet.training.pictures import read_picture
from lib_controlnet.training.readers import read_data

from .tiny import SIDE, draw, make_pairs

RAMP = np.linspace(0, 1, 32 * 32).reshape(32, 32)


def deep(kind: str) -> Image.Image:
    if kind == "16 bit":
        return Image.fromarray((RAMP * 65535).astype(np.uint16))
    if kind == "float":
        return Image.fromarray(RAMP.astype(np.float32))
    if kind == "32 bit":
        return Image.fromarray((RAMP * 65535).astype(np.int32))
    return Image.fromarray((RAMP * 255).round().astype(np.uint8))


@pytest.mark.parametrize(("kind", "suffix"), [("16 bit", "png"), ("16 bit", "tiff"), ("float", "tiff"),
                                              ("32 bit", "tiff"), ("8 bit", "png")])  # fmt: skip
def test_deep_maps_keep_their_levels(kind: str, suffix: str, tmp_path: Path) -> None:
    deep(kind).save(tmp_path / f"map.{suffix}")
    found = read_picture(tmp_path / f"map.{suffix}", "map")
    assert np.abs(found[..., 0].astype(float) - RAMP * 255).max() <= 1
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize("values", [RAMP * 3.2, RAMP - 0.5, np.where(RAMP > 0.5, np.nan, RAMP)])
def test_floats_of_no_known_range_are_refused(values: np.ndarray, tmp_path: Path) -> None:
    """Scaled by what each happens to hold, the maps of one set would not mean the same."""
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "map.tiff")
    with pytest.raises(TrainingError, match=r"no known range.*16-bit PNG"):
        read_picture(tmp_path / "map.tiff", "map")


def test_a_deep_map_is_turned_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep("16 bit").crop((0, 0, 32, 16)).save(tmp_path / "turned.tiff", exif=exif)
    path = tmp_path / "turned.tiff"
    assert read_picture(path, "turned").shape == (32, 16, 3)
    assert picture_file(path, "turned").facts().size == (16, 32)


def options(folder: Path, **more: Any) -> DataOptions:
    return DataOptions(folder=folder, resolution=SIDE, held_out=2, **more)


def rewrite(pairs: Path, change: Any) -> None:
    rows = [json.loads(line) for line in (pairs / "prompt.json").read_text("utf-8").splitlines()]
    (pairs / "prompt.json").write_text(change(rows), "utf-8")


def lines(rows: list[Any]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: "\ufeff" + lines(rows),
        lambda rows: lines(rows).replace("\n", "\r\n"),
        lambda rows: lines(rows).replace("disc 1", "disc\u20281"),
        lambda rows: json.dumps(rows),
    ],
    ids=["BOM", "CRLF", "U+2028", "a list"],
)
def test_text_as_other_programs_write_it(change: Any, pairs: Path) -> None:
    rewrite(pairs, change)
    found = read_data(options(pairs))
    assert (len(found.examples), found.problems) == (6, [])
    assert found.examples[0].captions == ("disc 0",)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": None}, "empty caption"),
        ({"prompt": {"en": "disc"}}, "no source, target and prompt"),
        ({"prompt": True}, "no source, target and prompt"),
        ({"source": 5}, "no source, target and prompt"),
        ({"target": None}, "no source, target and prompt"),
    ],
)
def test_cells_that_are_no_text_are_told(row: dict[str, Any], problem: str, pairs: Path) -> None:
    """ "None" is no caption."""
    rewrite(pairs, lambda rows: lines([{**rows[0], **row}, *rows[1:]]))
    found = read_data(options(pairs))
    assert any(problem in text for text in check_data(found, options(pairs)).problems)
    assert not any("None" in caption for example in found.examples for caption in example.captions)


def test_lines_that_are_no_objects_are_told(pairs: Path) -> None:
    rewrite(pairs, lambda rows: lines([*rows, [1, 2], "text", None]))
    assert len(read_data(options(pairs)).problems) == 3


@pytest.mark.parametrize("suffix", ["caption", ".caption"])
def test_a_suffix_with_and_without_its_dot(suffix: str, pairs: Path) -> None:
    for n in range(6):
        (pairs / "target" / f"{n}.caption").write_text(f"disc {n}", "utf-8")
    made = options(pairs / "target", format="pictures", preprocessor="canny", caption_extension=suffix)
    assert [example.captions for example in read_data(made).examples] == [(f"disc {n}",) for n in range(6)]


@pytest.mark.parametrize("suffix", ["", ".", "../x", " "])
def test_a_suffix_that_is_none(suffix: str, pairs: Path) -> None:
    with pytest.raises(TrainingError, match="need a suffix"):
        options(pairs, caption_extension=suffix)


def test_splits_of_a_hub_folder(pairs: Path, tmp_path: Path) -> None:
    """`datasets`' imagefolder: a table in each split's folder; validation is held out."""
    for split_name, numbers in (("train", range(4)), ("validation", range(4, 6))):
        folder = tmp_path / "made" / split_name
        shutil.copytree(pairs / "target", folder)
        shutil.copytree(pairs / "source", folder / "maps")
        rows = [{"file_name": f"{n}.png", "conditioning_image": f"maps/{n}.png", "text": f"disc {n}"} for n in numbers]
        (folder / "metadata.jsonl").write_text(lines(rows), "utf-8")
    found = read_data(options(tmp_path / "made", format="datasets"))
    assert found.problems == []
    assert [e.captions[0] for e in found.examples] == [f"disc {n}" for n in range(4)]
    assert [e.captions[0] for e in found.held_out] == ["disc 4", "disc 5"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_by_itself_with_columns_of_ones_own(separator: str, pairs: Path) -> None:
    rows = [separator.join(("bild", "karte", "worte"))]
    rows += [separator.join((f"target/{n}.png", f"source/{n}.png", f'"disc, {n}"')) for n in range(6)]
    (pairs / "pairs.csv").write_text("\ufeff" + "\n".join(rows), "utf-8")
    columns = {"picture_column": "bild", "hint_column": "karte", "caption_column": "worte"}
    found = read_data(options(pairs / "pairs.csv", format="csv", **columns))
    assert found.problems == []
    assert [e.captions[0] for e in found.examples] == [f"disc, {n}" for n in range(6)]
    assert np.array_equal(found.examples[3].picture(), draw(3)[0])


def shard(folder: Path, pairs: Path, name: str, picture: str, hint: str, text: Any) -> Path:
    folder.mkdir()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for n in range(6):
            archive.add(pairs / "target" / f"{n}.png", f"a/{n:04d}.{picture}")
            archive.add(pairs / "source" / f"{n}.png", f"a/{n:04d}.{hint}")
            suffix, written = text(n)
            member = tarfile.TarInfo(f"a/{n:04d}.{suffix}")
            member.size = len(written)
            archive.addfile(member, io.BytesIO(written))
    packed = gzip.compress(content.getvalue()) if name.endswith("gz") else content.getvalue()
    (folder / name).write_bytes(packed)
    return folder


@pytest.mark.parametrize("name", ["0.tar", "0.tar.gz", "0.tgz"])
@pytest.mark.parametrize(
    ("picture", "hint", "text"),
    [
        ("png", "control.png", lambda n: ("txt", f"disc {n}".encode())),
        ("image.png", "conditioning_image.png", lambda n: ("json", json.dumps({"caption": f"disc {n}"}).encode())),
        ("target.png", "source.png", lambda n: ("caption", b"\xef\xbb\xbf" + f"disc {n}".encode())),
    ],
)
def test_shards_of_many_habits(name: str, picture: str, hint: str, text: Any, pairs: Path, tmp_path: Path) -> None:
    made = options(shard(tmp_path / "made", pairs, name, picture, hint, text), format="webdataset")
    found = read_data(made)
    assert found.problems == []
    assert [e.captions for e in found.examples] == [(f"disc {n}",) for n in range(6)]
    assert check_data(found, made).problems == ()
    for n, example in enumerate(found.examples):
        assert example.hint is not None
        assert np.array_equal(example.picture(), draw(n)[0])
        assert np.array_equal(example.hint(), draw(n)[1])


def test_a_shard_that_is_cut_off_is_told(pairs: Path, tmp_path: Path) -> None:
    made = shard(tmp_path / "made", pairs, "0.tar.gz", "png", "hint.png", lambda n: ("txt", b"disc"))
    (made / "0.tar.gz").write_bytes((made / "0.tar.gz").read_bytes()[:500])
    assert "cannot be read" in read_data(options(made, format="webdataset")).problems[0]


def test_kohyas_repeats_and_json(pairs: Path, tmp_path: Path) -> None:
    shutil.copytree(pairs / "target", tmp_path / "img" / "3_disc")
    shutil.copytree(pairs / "source", tmp_path / "cond")
    rows = {f"/elsewhere/{n}.png": {"caption": f"disc {n}", "tags": "round"} for n in range(6)}
    (tmp_path / "meta.json").write_text(json.dumps(rows), "utf-8")
    made = options(tmp_path / "img", format="kohya", control_folder=tmp_path / "cond", metadata=tmp_path / "meta.json")
    found = read_data(made)
    assert (len(found.examples), found.problems) == (18, [])
    assert found.examples[0].captions == ("disc 0, round",)
    train, held_out = split(found, made)
    assert (len(train), len(held_out)) == (12, 2)
    assert not set(train) & set(held_out)


def test_parquet_says_what_it_needs(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pairs / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(TrainingError, match="need the package pyarrow"):
        read_data(options(pairs, format="parquet"))


def test_a_file_as_folder_and_a_folder_without_pairs(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is a file"):
        read_data(options(pairs / "prompt.json"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"prompt\.json cannot be read"):
        read_data(options(tmp_path / "empty"))


def test_headers_are_read_once(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second check of the same files opens none of them; of changed ones, those."""
    path = tmp_path / "seen.db"
    first = Remembered(path)
    check_data(read_data(options(pairs)), options(pairs), remembered=first)
    first.keep()
    opened: list[str] = []
    right = Image.open
    monkeypatch.setattr(Image, "open", lambda source: opened.append(source.name) or right(source))
    again = check_data(read_data(options(pairs)), options(pairs), remembered=Remembered(path))
    assert (again.problems, opened) == ((), [])
    Image.new("RGB", (SIDE, SIDE)).save(pairs / "source" / "2.png")
    check_data(read_data(options(pairs)), options(pairs), remembered=Remembered(path))
    assert opened == [str(pairs / "source" / "2.png")]


def test_fingerprints_follow_the_content(pairs: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(pairs, tmp_path / "moved")
    one, other = (read_data(options(folder)).examples for folder in (pairs, moved))
    assert [e.picture.facts() for e in one] == [e.picture.facts() for e in other]
    assert len({e.picture.facts().fingerprint for e in one}) == 6


def test_rare_sizes_are_not_shown_more_often() -> None:
    """Five odd shapes of a hundred pictures at batch 64: each picture once an epoch, each counting alike."""
    groups = [list(range(95)), [95], [96], [97], [98], [99]]
    order = Order(groups, 64, seed=0)
    visits, counted = np.zeros(100), np.zeros(100)
    for number in range(order.batches_per_epoch):
        indices = order.indices(number)
        visits[indices.numpy()] += 1
        counted[indices.numpy()] += order.share(indices) / len(indices)
    assert (visits == 1).all()
    assert counted == pytest.approx(1 / 64)


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_processes_share_a_small_batch(count: int, processes: int) -> None:
    """All get equally many rows, every row counts once."""
    shares = [rows_of(count, process, processes) for process in range(processes)]
    assert len({len(rows) for rows, _ in shares}) == 1
    counted = torch.zeros(count)
    for rows, weights in shares:
        counted.index_add_(0, torch.tensor(rows), torch.tensor(weights))
    assert counted.tolist() == [1.0] * count


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 3), (2, 5), (4, 20), (0, 7)])
def test_only_what_will_be_visited_is_wanted(first: int, last: int) -> None:
    order = Order([list(range(20)), [20, 21]], 3, seed=1)
    wanted = {i for number in range(first, last) for i in order.indices(number).tolist()}
    assert set(order.visited(first, last)) >= wanted
    if last - first < order.batches_per_epoch:
        assert set(order.visited(first, last)) == wanted


def test_an_empty_picture_is_no_picture(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "pairs")
    (pairs / "target" / "1.png").write_bytes(b"")
    assert any("1.png" in text for text in check_data(read_data(options(pairs)), options(pairs)).problems)
