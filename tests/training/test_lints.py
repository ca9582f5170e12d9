"""Data and settings that would train without an error and come to nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_controlnet.training.check import check_data, split
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.examples import Reading
from lib_controlnet.training.lints import find_lints, with_lints
from lib_controlnet.training.readers import read_data
from lib_controlnet.training.session import TrainingSession

from .tiny import Memory, config, make_pairs, session

COUNT = 24


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("lints") / "pairs", COUNT)


def names(folder: Path, checkpoint: Path = Path("none"), **changes: Any) -> set[str]:
    settings = config(checkpoint, folder, folder / "out", **changes)
    reading = read_data(settings.data)
    assert check_data(reading, settings.data).problems == ()
    return {lint.name for lint in find_lints(*split(reading, settings.data), settings)}


def files(folder: Path, part: str) -> list[Path]:
    return [folder / part / f"{n}.png" for n in range(COUNT)]


def swap(folder: Path) -> None:
    (folder / "source").rename(folder / "other")
    (folder / "target").rename(folder / "source")
    (folder / "other").rename(folder / "target")


def shuffle(folder: Path) -> None:
    maps = [path.read_bytes() for path in files(folder, "source")]
    for path, content in zip(files(folder, "source"), [*maps[7:], *maps[:7]], strict=True):
        path.write_bytes(content)


def black(folder: Path) -> None:
    for path in files(folder, "source"):
        Image.new("RGB", (64, 64)).save(path)


def some_black(folder: Path) -> None:
    for path in files(folder, "source")[::3]:
        Image.new("RGB", (64, 64)).save(path)


def same(folder: Path) -> None:
    for hint, picture in zip(files(folder, "source"), files(folder, "target"), strict=True):
        shutil.copy(picture, hint)


def copied(folder: Path) -> None:
    for path in files(folder, "source")[1:]:
        shutil.copy(files(folder, "source")[0], path)


def half_size(folder: Path) -> None:
    for path in files(folder, "source"):
        Image.open(path).resize((32, 32)).save(path)


def duplicates(folder: Path) -> None:
    for part in ("source", "target"):
        shutil.copy(files(folder, part)[5], files(folder, part)[6])


def one_picture(folder: Path) -> None:
    for part in ("source", "target"):
        for path in files(folder, part)[1:]:
            shutil.copy(files(folder, part)[0], path)


def shallow_depth(folder: Path) -> None:
    """Millimetres in 16 bits, unscaled."""
    for number, path in enumerate(files(folder, "source")):
        ramp = np.linspace(500, 3000 + number, 64 * 64).reshape(64, 64)
        Image.fromarray(ramp.astype(np.uint16)).save(path)


def long_captions(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "prompt.json").read_text("utf-8").splitlines()]
    rows[3]["prompt"] = "a very long caption of a disc " * 20
    (folder / "prompt.json").write_text("\n".join(map(json.dumps, rows)), "utf-8")


BAD: list[tuple[Callable[[Path], None], str]] = [
    (swap, "swapped"), (shuffle, "shuffled"), (black, "constant"), (some_black, "constant"), (same, "same"),
    (copied, "one map"), (half_size, "small maps"), (duplicates, "duplicates"), (one_picture, "few"),
    (one_picture, "held out"), (shallow_depth, "faint"), (long_captions, "long captions"),
]  # fmt: skip


def test_good_data_is_only_little(good: Path) -> None:
    assert names(good) == {"few"}


@pytest.mark.parametrize(("spoil", "name"), BAD, ids=[f"{spoil.__name__} {name}" for spoil, name in BAD])
def test_what_is_silently_wrong_is_found(spoil: Callable[[Path], None], name: str, good: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(good, tmp_path / "pairs")
    spoil(folder)
    found = names(folder)
    assert name in found
    assert len(found - {"few", name}) <= 2, found


@pytest.mark.parametrize(
    ("pairs", "held_out", "every", "found"), [(1, 4, 8, True), (2, 4, 8, False), (5, 0, 8, True), (1, 4, 0, False)]
)
def test_samples_of_nothing_are_said(pairs: int, held_out: int, every: int, found: bool, tmp_path: Path) -> None:
    folder = make_pairs(tmp_path / "pairs", pairs)
    assert ("no looks" in names(folder, data={"held_out": held_out}, samples={"every": every})) == found


def test_the_report_counts_what_is_trained_on_and_held_out(good: Path, tmp_path: Path) -> None:
    settings = config(tmp_path, good, tmp_path / "out", data={"held_out": 4})
    found = read_data(settings.data)
    repeated = Reading(found.examples[:1] * 3)
    own = Reading(found.examples[6:], found.examples[:6])
    for reading in (found, repeated, own):
        report, parts = check_data(reading, settings.data), split(reading, settings.data)
        assert (report.pairs, report.held_out) == tuple(map(len, parts))


@pytest.mark.parametrize(("rate", "found"), [(1.0, True), (0.05, True), (5e-3, True), (1e-5, False), (1e-12, True)])
def test_rates(rate: float, found: bool, good: Path) -> None:
    assert ("rate" in names(good, train={"learning_rate": rate})) is found


def test_what_leaves_no_doubt_does_not_start(checkpoint: Path, good: Path, tmp_path: Path) -> None:
    """Unless it is meant."""
    folder = shutil.copytree(good, tmp_path / "pairs")
    black(folder)
    with pytest.raises(TrainingError, match=r'22 of 22 control maps.*are black.*data.accept = \["constant"\]'):
        session(config(checkpoint, folder, tmp_path / "out")).run()
    watcher = Memory()
    meant = config(checkpoint, folder, tmp_path / "out", data={"accept": ["constant", "one map"]}, train={"steps": 1})
    assert session(meant, watcher).run().steps == 1
    assert watcher.reports[0].problems == ()
    with pytest.raises(TrainingError, match="no such finding"):
        config(checkpoint, folder, tmp_path / "out", data={"accept": ["blak"]})


PLAIN = {"format": "pictures"}


def plain(folder: Path, count: int = COUNT) -> Path:
    """Pictures with captions beside them: a preprocessor makes the maps."""
    pairs = make_pairs(folder / "pairs", count)
    for number in range(count):
        shutil.copy(pairs / "target" / f"{number}.png", folder)
        (folder / f"{number}.txt").write_text(f"disc {number}", "utf-8")
    shutil.rmtree(pairs)
    return folder


def _black(picture: Any) -> Any:
    return np.zeros_like(picture)


def _white(picture: Any) -> Any:
    return np.full_like(picture, 255)


def _some(picture: Any) -> Any:
    return _black(picture) if picture.sum() % 3 == 0 else 255 - picture


@pytest.mark.parametrize(
    ("make", "name", "refuses", "said"),
    [
        (
            _black,
            "constant",
            True,
            "16 of 16 control maps looked at are black and say nothing: `canny` finds nothing in",
        ),
        (_white, "constant", True, "are of one colour"),
        (_some, "constant", False, "of 16 control maps looked at are black"),
        (lambda picture: picture, "same", False, "16 of 16 control maps looked at are their own pictures"),
        (lambda picture: 255 - picture, "", False, ""),
    ],
)
def test_maps_that_a_preprocessor_makes_are_looked_at_too(
    make: Callable[[Any], Any], name: str, refuses: bool, said: str, tmp_path: Path
) -> None:
    settings = config(Path("none"), plain(tmp_path), tmp_path / "out", data=PLAIN)
    asked: list[Any] = []
    parts = split(read_data(settings.data), settings.data)
    found = find_lints(*parts, settings, lambda picture: (asked.append(picture), make(picture))[1])
    assert len(asked) == 16  # some preprocessors take seconds a picture
    wanted = [lint for lint in found if lint.name == name]
    assert [lint.refuses for lint in wanted] == [refuses] * bool(name)
    assert all(said in str(lint) for lint in wanted)
    assert {lint.name for lint in found} == {"few", *({name} if name else ())}
    assert {lint.name for lint in find_lints(*parts, settings)} == {"few"}  # where nothing can make them


def test_a_few_pairs_without_a_map_refuse_nothing(good: Path, tmp_path: Path) -> None:
    """A table may lack the map of some of its pictures: what a preprocessor then finds in these is no matter of all."""
    rows = [{"file_name": f"target/{n}.png", "conditioning_image": f"source/{n}.png" if n % 12 else None,
             "text": f"disc {n}"} for n in range(COUNT)]  # fmt: skip
    folder = shutil.copytree(good, tmp_path / "pairs")
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    settings = config(Path("none"), folder, tmp_path / "out", data={"format": "datasets", "held_out": 0})
    found = find_lints(*split(read_data(settings.data), settings.data), settings, _black)
    (lint,) = (lint for lint in found if lint.name == "constant")
    assert "2 of 2 control maps looked at are black" in lint.sentence
    assert not lint.refuses


def test_a_preprocessor_that_finds_nothing_does_not_start(checkpoint: Path, tmp_path: Path) -> None:
    """Unless it is meant."""
    folder = plain(tmp_path / "plain", 8)

    def nothing(name: str, picture: Any, resolution: int, settings: Any) -> Any:
        assert (name, resolution, tuple(settings)) == ("canny", 64, ())
        return _black(picture)

    settings = config(checkpoint, folder, tmp_path / "out", data=PLAIN)
    with pytest.raises(TrainingError, match="`canny` finds nothing in their pictures"):
        TrainingSession(settings, Memory(), nothing, planned=False).run()
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    meant = config(checkpoint, folder, tmp_path / "out", data={**PLAIN, "accept": ["constant"]}, train={"steps": 1})
    assert TrainingSession(meant, Memory(), nothing, planned=False).run().steps == 1


def test_a_map_with_a_mask_is_looked_at_as_the_training_sees_it(checkpoint: Path, tmp_path: Path) -> None:
    """What is transparent is black in a file."""

    def masked(name: str, picture: Any, resolution: int, settings: Any) -> Any:
        return np.dstack([picture, np.zeros_like(picture[..., 0])])

    settings = config(checkpoint, plain(tmp_path / "plain", 8), tmp_path / "out", data=PLAIN)
    with pytest.raises(TrainingError, match="are black and say nothing"):
        TrainingSession(settings, Memory(), masked, planned=False).run()


def test_made_maps_are_looked_at_once_and_a_stop_is_heard_meanwhile(checkpoint: Path, tmp_path: Path) -> None:
    """Some preprocessors take a minute a picture: a training that goes on does not make them again."""
    folder, made = plain(tmp_path / "plain", 8), list[str]()

    def edges(name: str, picture: Any, resolution: int, settings: Any) -> Any:
        made.append(name)
        return 255 - picture

    def run(memory: Memory, **options: Any) -> Any:
        settings = config(checkpoint, folder, tmp_path / "out", data=PLAIN, train={"steps": 2})
        made.clear()
        return TrainingSession(settings, memory, edges, planned=False, **options).run()

    class Hasty(Memory):
        def stopping(self) -> bool:
            return len(made) >= 3

    assert run(Hasty()).stopped
    assert len(made) == 3  # one of them of a blank picture
    assert run(Memory(stop_after=1)).stopped
    looked_at, kept = 6, 4 + 2  # kept: of those that two steps see, and held out
    assert len(made) == 1 + looked_at + kept
    assert run(Memory(), resume=True).steps == 2
    assert len(made) == 1


def test_the_report_carries_sentences_and_data(good: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(good, tmp_path / "pairs")
    half_size(folder)
    settings = config(Path("none"), folder, tmp_path / "out")
    reading = read_data(settings.data)
    report = with_lints(check_data(reading, settings.data), *split(reading, settings.data), settings).as_json()
    lint = next(lint for lint in report["lints"] if lint["name"] == "small maps")
    assert "22 control maps are smaller than their pictures (the first one 2.0 times)" in lint["sentence"]
    assert lint["examples"] == ["target/1.png", "target/2.png", "target/3.png", "…"]
    assert any(lint["sentence"] in warning for warning in report["warnings"])
