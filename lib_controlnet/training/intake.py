"""What a training sees of its data: all of it from the beginning, or, of a stream, one window after the other.

A window is looked at, looked through for what is silently wrong, and encoded before its first step; nothing behind it
is opened. What is wrong with single pairs of it is said, and they are passed over, up to `data.pass_over` of them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .base import Base
from .cache import EncodedData, Preprocess
from .captions import no_interrogator
from .chance import Order
from .check import DataReport, check_data, split, usable
from .config import TrainConfig
from .errors import Stopped, TrainingError
from .examples import Example, Reader, Reading, Remembered
from .kinds import kind_named
from .lints import with_lints
from .needed import check_preprocessors
from .pictures import Pixels, as_kept
from .readers import parts_of, read_data
from .resuming import marks
from .room import Room
from .shares import Helpers
from .stream import Place, Stream, Window

_SHOWN = 5
_PLACE = tuple(field.name for field in dataclasses.fields(Place))


class Owner(Protocol):
    """The session, as far as its data needs it."""

    config: TrainConfig
    accelerator: Any

    @property
    def watcher(self) -> Any: ...
    def stage(self, what: str, done: int, total: int) -> None: ...
    def pause_if_asked(self) -> None: ...
    def stopping(self) -> bool: ...
    def agree(self, wanted: bool) -> bool: ...


class Intake:
    """`train` and `held_out`: the pairs of now. `first`: the step from which on the present window is trained on.
    `passed_over`: pairs of all windows so far. `news`: of windows that were opened, for the log. `ready`: pairs that
    are encoded; `made`: what was made for that."""

    def __init__(
        self, owner: Owner, preprocess: Preprocess, extra: Mapping[str, Reader] | None, helpers: Helpers | None = None
    ) -> None:
        self._owner, self._config, self._preprocess, self._extra = owner, owner.config, preprocess, extra
        self._folder, data = owner.config.output.folder / "cache", owner.config.data
        self._remembered = Remembered(self._folder / "seen.db")
        self._stream = Stream(lambda: parts_of(data, extra), data.stream, data.count) if data.stream else None
        self._place, self._following = Place(), Place()
        self._own: list[Example] = []
        self._before = 0
        self._maps_known = False
        """What its preprocessor makes was looked at when the training began."""
        self.train: list[Example] = []
        self.held_out: list[Example] = []
        self.first = self.passed_over = 0
        self.news: list[dict[str, Any]] = []
        self.ready = 0
        self.made: Counter[str] = Counter()
        self._helpers = helpers

    @property
    def window(self) -> int | None:
        """The number of the present one; None where the data is no stream."""
        return None if self._stream is None else self._place.window

    def begin(self, stored: Mapping[str, Any] | None) -> None:
        """List and check the data, of a stream the window in which the `stored` training was. Raises TrainingError."""
        before = {} if stored is None else stored.get("config", {}).get("data", {})
        self._maps_known = before.get("preprocessor") == self._config.data.preprocessor
        if self._stream is None:
            reading = read_data(self._config.data, self._extra)
            if reading.to_caption:
                raise no_interrogator(reading.to_caption)
            self._try_preprocessors(reading)
            report = self._checked(reading)
            report.raise_problems()
            self._take(reading, report)
            return
        own = self._stream.held_out(self._config.data.held_out)
        self._own = own.held_out
        window = self._stream.window(self._place)
        window.reading.problems[:0] = own.problems
        self._try_preprocessors(window.reading)
        self._open(window)
        if not self.train:
            raise TrainingError("there is no pair to train on", field="data", found="all of the first are held out",
                                remedy="raise data.stream, or lower data.held_out")  # fmt: skip
        saved = ({} if stored is None else stored.get("marks", {})).get("stream")
        if saved is not None:
            self.first, self.passed_over, self.news = saved["first"], saved["passed_over"], []
            self._open(self._stream.window(Place(**{name: saved[name] for name in _PLACE})))
        elif stored is not None:
            self.first = int(stored["step"])

    def advance(self, first: int) -> None:
        """The next window of a stream that has pairs to train on, from step `first` on. Raises TrainingError."""
        assert self._stream is not None
        self.first, epoch = first, self._place.epoch
        self._open(self._stream.window(self._following))
        while not self.train:
            if self._place.epoch > epoch + 1:
                raise TrainingError("there is no complete pair any more", field="data", remedy="correct the data")
            self._open(self._stream.window(self._following))

    def marks(self, sha256: str) -> dict[str, Any]:
        """By what a training that goes on knows its data again."""
        found = marks(sha256, self.train, self.held_out)
        if self._stream is None:
            return found
        place = self._place
        stream = {**dataclasses.asdict(place), "first": self.first, "passed_over": self._before}
        return found | {"pairs": max(place.pairs, place.seen + len(self.train)), "stream": stream}

    def encode(self, base: Base, room: Room, step: int) -> tuple[EncodedData, EncodedData]:
        """What the steps from `step` on will visit, of a stream the whole window but for what cannot be read, and what
        is shown; each process encodes its share. Raises TrainingError, and Stopped in all processes where one was
        asked."""
        made = self._encoded(base, room, "train", self.train), self._encoded(base, room, "held_out", self.held_out)
        options, accelerator = self._config.train, self._owner.accelerator
        visited: Sequence[int] = range(len(self.train))
        if self._stream is None:
            order = Order(made[0].groups, options.batch_size * accelerator.num_processes, options.seed)
            visited = order.visited(step * options.accumulation, options.steps * options.accumulation)
        stopped = False
        try:
            made[0].encode(visited, self._owner, pass_over=self._stream is not None)
            made[1].encode(range(len(self.held_out)), self._owner)
        except Stopped:
            stopped = True
        for data in made:
            data.release()
            self.made += data.made
        if self._owner.agree(stopped):
            raise Stopped
        accelerator.wait_for_everyone()
        for data in made:
            data.look()
        lacking = [] if self._stream is None else made[0].lacking()
        self.ready += len(visited) - len(lacking) + (0 if self._place.window else len(self.held_out))
        if not lacking:
            return made
        self._pass_over([f'"{self.train[index].name}" cannot be read to its end' for index in lacking], len(self.train))
        read = [example for index, example in enumerate(self.train) if index not in set(lacking)]
        return self._encoded(base, room, "train", read), made[1]

    def encode_ahead(self, base: Base, room: Room) -> None:
        """All that the steps from the first on will see, of a stream each pair once at most. Raises as `encode`."""
        options, processes = self._config.train, self._owner.accelerator.num_processes
        step = 0
        while True:
            data, _ = self.encode(base, room, step)
            if self._stream is None:
                return
            if data.examples:
                order = Order(data.groups, options.batch_size * processes, options.seed, self.window)
                step += -(-order.batches_per_epoch // options.accumulation)
            if step >= options.steps or self._following.epoch:
                return
            self.advance(step)
            if self._place.epoch:
                return

    def _encoded(self, base: Base, room: Room, name: str, examples: Sequence[Example]) -> EncodedData:
        accelerator = self._owner.accelerator
        return EncodedData(base, self._config.data, self._folder / name, room, self._preprocess, examples,
                           accelerator.process_index, accelerator.num_processes,
                           kind_named(self._config.control.kind).latent_hints, self._helpers)  # fmt: skip

    def _try_preprocessors(self, reading: Reading) -> None:
        pairs = [*reading.examples, *reading.held_out]
        check_preprocessors(self._config, self._preprocess, any(pair.hint is None for pair in pairs))

    def _map_of(self, picture: Pixels) -> Pixels:
        """As the training sees it. Raises Stopped where it is to end: some preprocessors take long."""
        data = self._config.data
        self._stop_if_asked()
        return as_kept(self._preprocess(data.preprocessor, picture, data.resolution, data.preprocessor_params))

    def _checked(self, reading: Reading) -> DataReport:
        report = check_data(reading, self._config.data, self._look_on, self._remembered)
        if self._owner.accelerator.is_main_process:
            self._remembered.keep()
        return report

    def _look_on(self, done: int, total: int) -> None:
        self._owner.stage("check", done, total)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._owner.accelerator.num_processes == 1:  # several agree once they have encoded
            self._owner.pause_if_asked()

    def _open(self, window: Window) -> None:
        reading, place = window.reading, window.place
        self._place, self._following, self._before = place, window.following, self.passed_over
        reading.held_out = self._own if not place.seen else []
        self.news.append({"window": place.window, "epoch": place.epoch, "pairs": len(reading.examples), "says": []})
        if place.window and not reading.examples:
            self._pass_over(reading.problems, len(reading.problems))
            self.train = []
            return
        report = self._checked(reading)
        self._pass_over(report.problems, len(reading.examples) + len(reading.problems))
        self._take(usable(reading, report), dataclasses.replace(report, problems=()))

    def _take(self, reading: Reading, report: DataReport) -> None:
        """Train on these from now on, if nothing in them is silently wrong."""
        place, config = self._place, self._config
        if place.seen:
            self.train = reading.examples
        else:  # the first pairs of each epoch are the same
            self.train, self.held_out = split(reading, config.data)
        if place.window:  # the settings were looked at, and a last window may be small
            accepted = (*config.data.accept, "few", "no looks", "rate")
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, accept=accepted))
        if not place.epoch and self.train:
            make = None if place.window or self._maps_known else self._map_of
            report = with_lints(report, self.train, self.held_out, config, make)
        if not place.window:
            self._owner.watcher.data(report)
        else:
            self._say(*(f"window {place.window + 1}: {warning}" for warning in report.warnings))
        report.raise_problems()

    def _pass_over(self, problems: Sequence[str], of: int) -> None:
        """Say what is wrong and go on. Raises TrainingError where it is too much."""
        if not problems:
            return
        shown = "; ".join(problems[:_SHOWN]) + (f"; and {len(problems) - _SHOWN} more" if problems[_SHOWN:] else "")
        most = self._config.data.pass_over
        if len(problems) > max(most * of, bool(self._place.window)):  # a last window may be one bad pair
            raise TrainingError(
                f"{len(problems)} of {of} pairs in window {self._place.window + 1} of the data cannot be used",
                field="data",
                found=shown,
                remedy=f"correct them and go on with --resume, or raise data.pass_over ({most:g})",
            )
        self.passed_over += len(problems)
        self._say(f"window {self._place.window + 1}: {len(problems)} of {of} pairs are passed over: {shown}")

    def _say(self, *sentences: str) -> None:
        for sentence in sentences:
            self._owner.watcher.say(sentence)
            if self.news:
                self.news[-1]["says"].append(sentence)
