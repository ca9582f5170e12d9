"""Encoding ahead of a training: `train --prepare`, here and by processes that know nothing of each other."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lib_controlnet.training import encoder, room
from lib_controlnet.training.config import DataOptions
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.readers import read_data
from lib_controlnet.training.records import write_toml
from lib_controlnet.training.shares import Done, Share
from lib_controlnet.training.store import Store
from standalone.train import helping
from standalone.train.cli import main
from standalone.train.preprocessors import Preprocessors

from .test_stream import make_shards, same, streamed
from .tiny import SIDE, Memory, config, draw, session


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many pictures are encoded together follows from the clock, and shows in the last bit of a latent."""
    monkeypatch.setattr(room, "MOST_AT_ONCE", 1)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Without maps."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(7):
        Image.fromarray(draw(number)[0]).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"disc {number % 5}", "utf-8")
    return folder


def plain(checkpoint: Path, data: Path, out: Path, **more: Any) -> Any:
    return config(checkpoint, data, out, data={"format": "pictures", "held_out": 1}, samples={"every": 8}, **more)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "cache").rglob("*.safetensors"))}


class Helped:
    """Helpers in this process, to which shares and answers travel as to another: pickled. `dies`: after so many shares
    the process that asks is killed."""

    def __init__(self, work: helping.Work, dies: int = 0) -> None:
        self.work, self.dies = work, dies
        self.shares: list[tuple[str, int]] = []

    def __call__(self, shares: Iterable[Share], go_on: Callable[[], None]) -> Iterator[tuple[Share, Done]]:
        for share in shares:
            go_on()
            if self.dies and len(self.shares) >= self.dies:
                raise KeyboardInterrupt
            there = pickle.loads(pickle.dumps(share))
            self.shares.append((share.what, len(share)))
            answer = helping.make(there, self.work)
            yield share, pickle.loads(pickle.dumps(answer))


def helped(of: Any, **more: Any) -> Helped:
    return Helped(helping.Work(of.base, of.data, of.train.precision, ()), **more)


@pytest.fixture
def small_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib_controlnet.training.cache.SHARE", 2)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is encoded from now on, in this process."""
    seen: list[str] = []
    right = encoder.Encoder.make

    def make(self: Any, what: Any, items: Any, *rest: Any) -> int:
        seen.extend([what] * len(items))
        return right(self, what, items, *rest)

    monkeypatch.setattr(encoder.Encoder, "make", make)
    return seen


def test_a_training_finds_everything_prepared_and_is_the_same_to_the_bit(
    checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Memory()
    session(plain(checkpoint, pictures, tmp_path / "alone"), alone).run()
    settings = plain(checkpoint, pictures, tmp_path / "out")
    made = session(settings).prepare()
    assert (made.pairs, made.stopped) == (7, False)
    assert made.made == {"pictures": 7, "captions": 8, "control maps": 7}, "an empty one for each of two caches"
    assert shards(tmp_path / "out") == shards(tmp_path / "alone")
    assert session(settings).prepare().made == {}
    encoded, watcher = watched(monkeypatch), Memory()
    session(settings, watcher).run()
    assert encoded == []
    assert same(tmp_path / "out", tmp_path / "alone")
    grids = [[look.grid.read_bytes() for look in of.looks] for of in (watcher, alone)]
    assert grids[0] == grids[1]


def test_a_stopped_preparation_goes_on_where_it_was(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    class Impatient(Memory):
        def stopping(self) -> bool:
            return [done for what, done, _ in self.stages if what == "pictures"][-1:] == [4]

    settings = plain(checkpoint, pictures, tmp_path / "out")
    first = session(settings, Impatient()).prepare()
    assert first.stopped
    assert first.made == {"pictures": 4}, "of six, and one held out"
    second = session(settings).prepare()
    assert second.made["pictures"] == 3
    assert len(Store(tmp_path / "out" / "cache" / "train", "latents")) == 6


def test_a_stream_is_prepared_window_by_window(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 pairs in windows of 5, one held out: three windows, and no step sees another."""
    data = make_shards(tmp_path / "data", 12)
    settings = streamed(checkpoint, data, tmp_path / "out")
    made = session(settings).prepare()
    assert (made.pairs, made.made["pictures"]) == (12, 12)
    encoded = watched(monkeypatch)
    session(settings).run()
    assert encoded == []


def test_no_step_of_a_stream_sees_what_is_not_prepared(checkpoint: Path, tmp_path: Path) -> None:
    data = make_shards(tmp_path / "data", 12)
    made = session(streamed(checkpoint, data, tmp_path / "out", steps=3)).prepare()
    assert made.pairs == 10, "the first two steps see the first window, the third the second"


@pytest.mark.usefixtures("small_shares")
def test_helpers_make_the_same(
    checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = plain(checkpoint, pictures, tmp_path / "out")
    helpers = helped(settings)
    made = session(settings, helpers=helpers).prepare()
    assert made.made == {"pictures": 7, "captions": 8, "control maps": 7}
    assert helpers.shares[:3] == [("pictures", 2)] * 3
    session(plain(checkpoint, pictures, tmp_path / "alone")).prepare()
    here, there = (Store(tmp_path / of / "cache" / "train", "latents") for of in ("alone", "out"))
    keys = here._index.keys_from("")
    assert len(keys) > 6
    assert all(torch.equal(here[key], there[key]) for key in keys if not key.startswith("shard"))
    encoded = watched(monkeypatch)
    session(settings).run()
    assert encoded == []
    session(plain(checkpoint, pictures, tmp_path / "alone")).run()
    assert same(tmp_path / "out", tmp_path / "alone")


@pytest.mark.usefixtures("small_shares")
def test_what_helpers_made_is_not_made_again(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    settings = plain(checkpoint, pictures, tmp_path / "out")
    first = helped(settings, dies=2)
    with pytest.raises(KeyboardInterrupt):
        session(settings, helpers=first).prepare()
    second = helped(settings)
    made = session(settings, helpers=second).prepare()
    assert made.pairs == 7
    counted = [sum(count for what, count in of.shares if what == "pictures") for of in (first, second)]
    assert counted == [4, 3], "six to train on and one held out"


@pytest.mark.usefixtures("small_shares")
def test_helpers_stop_and_pass_over_and_say_what_is_wrong(checkpoint: Path, tmp_path: Path) -> None:
    data = make_shards(tmp_path / "data", 12, broken=(6,))
    settings = streamed(checkpoint, data, tmp_path / "out")
    watcher = Memory()
    made = session(settings, watcher, helpers=helped(settings)).prepare()
    assert made.pairs == 11
    assert any("00006" in sentence for sentence in watcher.said)
    whole = config(checkpoint, data, tmp_path / "whole", data={"format": "webdataset", "held_out": 1})
    with pytest.raises(TrainingError, match="00006") as raised:
        session(whole, helpers=helped(whole)).prepare()
    assert raised.value.field == "data"
    assert session(settings, Stopping(), helpers=helped(settings)).prepare().stopped


class Stopping(Memory):
    def stopping(self) -> bool:
        return True


def test_helpers_with_other_weights_are_found_out(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    settings = plain(checkpoint, pictures, tmp_path / "out")
    helpers = helped(settings)

    def others(shares: Iterable[Share], go_on: Callable[[], None]) -> Iterator[tuple[Share, Done]]:
        for share, answer in helpers(shares, go_on):
            Store(share.shard.parent, "latents", 1).add("another's", torch.zeros(4, 8, 8), "it")
            share.shard.unlink()
            yield share, answer

    with pytest.raises(TrainingError, match="another machine made something else"):
        session(settings, helpers=others).prepare()


def test_a_share_of_a_gzipped_shard_opens_it_where_it_is(tmp_path: Path) -> None:
    """The temporary file of the process that asks is not there on another machine."""
    data = make_shards(tmp_path / "data", 2)
    packed = data / "00000.tar.gz"
    packed.write_bytes(gzip.compress((data / "00000.tar").read_bytes()))
    (data / "00000.tar").unlink()
    found = read_data(DataOptions(folder=data, format="webdataset", resolution=SIDE))
    sent = pickle.dumps(found.examples[1])
    expected = found.examples[1].picture()
    del found
    assert (pickle.loads(sent).picture() == expected).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--engine", "ray"], "give --prepare with it"),
        (["--prepare", "--workers", "2"], "give --engine ray with it"),
        (["--prepare", "--address", "here:1"], "give --engine ray with it"),
        (["--memory", "8"], "give --plan with it"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    given: list[str], said: str, checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_toml(tmp_path / "config.toml", plain(checkpoint, pictures, tmp_path / "out").as_json())
    assert main([str(tmp_path / "config.toml"), "--quiet", *given]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["0", "-3", "nan", "inf", "1e-400", "much"])
def test_a_card_that_cannot_be_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["none.toml", "--plan", f"--memory={given}"])
    assert ended.value.code == 2
    assert "argument --memory" in capsys.readouterr().err


@pytest.mark.parametrize("section", ["data", "samples"])
def test_a_plan_knows_the_preprocessors(
    section: str, checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = plain(checkpoint, pictures, tmp_path / "out").as_json()
    settings[section]["preprocessor"] = "cany"
    write_toml(tmp_path / "config.toml", settings)
    assert main([str(tmp_path / "config.toml"), "--plan", "--json"]) == 1
    said = json.loads(capsys.readouterr().err)["error"]
    assert "cany" in said
    assert f"{section}.preprocessor" in said


def test_maps_that_were_made_do_not_stay_in_memory() -> None:
    """They are on the disk; of a hundred thousand the sum of their sizes took longer than the maps."""
    preprocessors = Preprocessors(())
    for number in range(5):
        preprocessors("canny", draw(number)[0], SIDE, ())
    assert len(preprocessors._runner._results) <= 1
