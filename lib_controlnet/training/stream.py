"""A data set window by window: so many pairs at a time, without a look at those behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .config import DataOptions
from .examples import Reading
from .parts import Part
from .readers import parts_of, read_data


@dataclass(frozen=True)
class Place:
    """Where a window begins. `window` counts from 0 over all epochs; `part` and `index` say where in the data set;
    `seen`: pairs before it in this epoch; `pairs`: of the data set, as far as it is known."""

    window: int = 0
    epoch: int = 0
    part: int = 0
    index: int = 0
    seen: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class Window:
    """`reading`: what lies from `place` to `following`."""

    place: Place
    reading: Reading
    following: Place


def beginning(options: DataOptions) -> Reading:
    """All of the data, or the first window of a stream: what can be said of it before a training."""
    if not options.stream:
        return read_data(options)
    stream = Stream(lambda: parts_of(options), options.stream, options.count)
    own, found = stream.held_out(options.held_out), stream.window(Place()).reading
    return Reading(found.examples, own.held_out, own.problems + found.problems)


class Stream:
    """Windows of `size` pairs. `parts` begins the data set anew; `count`: only so many pairs of it, 0: all.

    Between two windows that follow each other nothing is opened twice.
    """

    def __init__(self, parts: Callable[[], Iterator[Part]], size: int, count: int = 0) -> None:
        self._begin, self._size, self._count = parts, size, count
        self._parts: Iterator[Part] = iter(())
        self._number, self._open = -1, Reading()
        self._ended = True

    def held_out(self, most: int) -> Reading:
        """The data set's own pairs for samples, up to `most`."""
        found = Reading()
        for part in self._begin():
            if len(found.held_out) >= most:
                break
            one = part.read()
            found.held_out += one.held_out
            if not part.held_out:  # its problems are told with its window
                break
            found.problems += one.problems
        found.held_out = found.held_out[:most]
        return found

    def window(self, place: Place) -> Window:
        """The one that begins at `place`, or, where the data set ends there, the first of the next epoch."""
        found = self._take(place)
        if place.seen and not found.reading.examples and not found.reading.problems:
            return self._take(found.following)
        return found

    def _take(self, place: Place) -> Window:
        self._go_to(place.part)
        found, index = Reading(), place.index
        wanted = min(self._size, self._count - place.seen) if self._count else self._size
        while len(found.examples) < wanted and not self._ended:
            rest = self._open.examples[index : index + wanted - len(found.examples)]
            found.examples += rest
            index += len(rest)
            if index >= len(self._open.examples):
                found.problems += self._open.problems
                found.left_out += self._open.left_out
                found.uncaptioned += self._open.uncaptioned
                self._next()
                index = 0
        seen = place.seen + len(found.examples)
        over = self._ended or (self._count and seen >= self._count)
        following = dataclasses.replace(
            place, window=place.window + 1, part=self._number, index=index, seen=seen, pairs=max(place.pairs, seen)
        )
        if over:
            following = dataclasses.replace(following, epoch=place.epoch + 1, part=0, index=0, seen=0)
        return Window(place, found, following)

    def _go_to(self, number: int) -> None:
        if number < self._number or self._number < 0:
            self._parts, self._number, self._ended = self._begin(), -1, False
        while self._number < number and not self._ended:
            self._next(skipped=self._number + 1 < number)

    def _next(self, skipped: bool = False) -> None:
        part = next(self._parts, None)
        self._ended = part is None
        self._number += 1
        self._open = Reading() if part is None or part.held_out or skipped else part.read()
