"""Data sets in the layouts of other tools, and what is told of those that are broken."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_controlnet.training.check import check_data, contact_sheet, split
from lib_controlnet.training.config import DataOptions
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.pictures import fitted, read_picture, training_size
from lib_controlnet.training.readers import read_data

from .tiny import SIDE, draw, make_pairs


def options(folder: Path, **more: object) -> DataOptions:
    return DataOptions(folder=folder, resolution=SIDE, held_out=2, **more)  # type: ignore[arg-type]


def as_jsonl(pairs: Path, folder: Path) -> DataOptions:
    shutil.copytree(pairs, folder)
    rows = [json.loads(line) for line in (folder / "prompt.json").read_text("utf-8").splitlines()]
    lines = [
        {"file_name": r["target"], "conditioning_image": r["source"], "text": [r["prompt"], "a disc"]} for r in rows
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return options(folder, format="diffusers")


def as_csv(pairs: Path, folder: Path) -> DataOptions:
    shutil.copytree(pairs, folder)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "conditioning_image", "text"])
        writer.writerows([f"target/{n}.png", f"source/{n}.png", f"disc {n}"] for n in range(6))
    return options(folder, format="diffusers")


def as_folders(pairs: Path, folder: Path) -> DataOptions:
    shutil.copytree(pairs / "target", folder / "image")
    shutil.copytree(pairs / "source", folder / "conditioning_image")
    (folder / "text").mkdir()
    for n in range(6):
        (folder / "text" / f"{n}.txt").write_text(f"disc {n}\n", "utf-8")
    return options(folder, format="diffusers")


def as_kohya(pairs: Path, folder: Path) -> DataOptions:
    shutil.copytree(pairs / "target", folder / "img")
    shutil.copytree(pairs / "source", folder / "cond")
    for n in range(6):
        (folder / "img" / f"{n}.caption").write_text(f"disc {n}", "utf-8")
    return options(folder / "img", format="kohya", control_folder=folder / "cond", caption_extension=".caption")


def as_shards(pairs: Path, folder: Path) -> DataOptions:
    """Names as webdataset's TarWriter gives them: key, dot, extension."""
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:06d}.tar", "w") as archive:
            for n in range(3 * shard, 3 * shard + 3):
                parts = {"png": pairs / "target" / f"{n}.png", "hint.png": pairs / "source" / f"{n}.png"}
                for suffix, path in parts.items():
                    archive.add(path, f"{n:04d}.{suffix}")
                text = f"disc {n}".encode()
                member = tarfile.TarInfo(f"{n:04d}.txt")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))
    return options(folder, format="webdataset")


def as_plain(pairs: Path, folder: Path) -> DataOptions:
    shutil.copytree(pairs / "target", folder)
    for n in range(6):
        (folder / f"{n}.txt").write_text(f"disc {n}", "utf-8")
    return options(folder, format="pictures", preprocessor="canny")


LAYOUTS = (as_jsonl, as_csv, as_folders, as_kohya, as_shards, as_plain)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pairs(layout, pairs: Path, tmp_path: Path) -> None:
    found = read_data(layout(pairs, tmp_path / "made"))
    assert found.problems == []
    assert [example.captions[0] for example in found.examples] == [f"disc {n}" for n in range(6)]
    for n, example in enumerate(found.examples):
        picture, edges = draw(n)
        assert np.array_equal(example.picture(), picture)
        assert example.size() == (SIDE, SIDE)
        if layout is not as_plain:
            assert example.hint is not None
            assert np.array_equal(example.hint(), edges)
    assert found.examples[0].captions == (("disc 0", "a disc") if layout is as_jsonl else ("disc 0",))


def test_the_papers_layout_and_the_report(pairs: Path) -> None:
    found = read_data(options(pairs))
    report = check_data(found, options(pairs))
    assert (report.pairs, report.held_out, report.captions) == (4, 2, 6)
    assert report.sizes == {(SIDE, SIDE): 6}
    assert (report.problems, report.warnings) == ((), ())
    assert contact_sheet(found.examples).shape == (256, 6 * 128, 3)
    train, held_out = split(found, options(pairs))
    assert sorted(e.name for e in train + held_out) == [f"target/{n}.png" for n in range(6)]
    assert (len(train), len(held_out)) == (4, 2)


def damage_missing_map(pairs: Path) -> str:
    (pairs / "source" / "2.png").unlink()
    return r'"target/2.png" has no control map \(2\.png\)'


def damage_missing_picture(pairs: Path) -> str:
    (pairs / "target" / "2.png").unlink()
    return '"target/2.png" has no picture'


def damage_header(pairs: Path) -> str:
    (pairs / "target" / "2.png").write_bytes(b"no picture at all")
    return '"target/2.png" cannot be read'


def damage_caption(pairs: Path) -> str:
    text = (pairs / "prompt.json").read_text("utf-8")
    (pairs / "prompt.json").write_text(text.replace("disc 2", " "), "utf-8")
    return '"target/2.png" has an empty caption'


def damage_shape(pairs: Path) -> str:
    Image.new("RGB", (SIDE, SIDE // 2)).save(pairs / "source" / "2.png")
    return '"target/2.png" is 64x64, but its control map 64x32: not the same shape'


def damage_line(pairs: Path) -> str:
    with (pairs / "prompt.json").open("a", encoding="utf-8") as stream:
        stream.write('{"source": "source/0.png"}\n')
    return "prompt.json, line 7: no source, target and prompt"


@pytest.mark.parametrize(
    "damage",
    [damage_missing_map, damage_missing_picture, damage_header, damage_caption, damage_shape, damage_line],
)
def test_broken_data_is_told_before_the_training(damage, pairs: Path) -> None:
    wanted = damage(pairs)
    with pytest.raises(TrainingError, match=wanted) as caught:
        check_data(read_data(options(pairs)), options(pairs)).raise_problems()
    assert "nothing was trained yet" in str(caught.value)


def test_a_picture_that_is_cut_off_is_told(pairs: Path) -> None:
    path = pairs / "target" / "1.png"
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(TrainingError, match=r"1\.png"):
        read_picture(path, path.name)


def test_empty_captions_can_be_allowed(pairs: Path) -> None:
    damage_caption(pairs)
    assert check_data(read_data(options(pairs)), options(pairs, allow_empty_captions=True)).problems == ()


def test_kohya_folders_that_do_not_pair_up(pairs: Path, tmp_path: Path) -> None:
    made = as_kohya(pairs, tmp_path / "made")
    (tmp_path / "made" / "img" / "1.png").unlink()
    (tmp_path / "made" / "img" / "3.caption").unlink()
    problems = read_data(made).problems
    assert 'the caption file "3.caption" is not there' in problems
    assert 'the control map "1.png" has no picture' in problems


def test_unknown_formats_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there is no data format"):
        read_data(options(tmp_path, format="coco"))
    with pytest.raises(TrainingError, match="is not there"):
        read_data(options(tmp_path / "nowhere"))
    with pytest.raises(TrainingError, match="metadata"):
        read_data(options(tmp_path, format="diffusers"))


def test_crop_and_buckets() -> None:
    """Sides are multiples of 64, the area is at most the square's, the shape the nearest there is."""
    assert training_size((1920, 1080), 512, "crop") == (512, 512)
    assert training_size((700, 700), 512, "buckets") == (512, 512)
    for size in ((1920, 1080), (600, 900), (1000, 990), (3000, 1000)):
        width, height = training_size(size, 512, "buckets")
        assert width % 64 == height % 64 == 0
        assert 0.7 * 512**2 < width * height <= 512**2
        assert abs(np.log(width / height) - np.log(min(size[0] / size[1], 2.5))) < 0.2


def test_fitting_is_that_of_torchvision() -> None:
    """Resize of the short side and CenterCrop: the middle of a picture twice as wide as high, halved."""
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 40:] = 200
    made = fitted(picture, (20, 20))
    assert made.shape == (20, 20, 3)
    assert made[:, :8].max() == 0
    assert made[:, 12:].min() == 200


def test_transparent_and_turned_pictures(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 4), (255, 255, 255, 0))
    clear.save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png", "clear.png").max() == 0
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg", "turned.jpg").shape == (8, 4, 3)


def test_pairs_of_many_shapes_fall_into_groups_of_one_size(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "pairs", 2, 256)
    wide = Image.open(pairs / "target" / "1.png").resize((512, 256))
    wide.save(pairs / "target" / "1.png")
    wide.save(pairs / "source" / "1.png")
    many = DataOptions(folder=pairs, resolution=256, aspect="buckets", held_out=0)
    assert set(check_data(read_data(many), many).sizes) == {(256, 256), (320, 192)}
