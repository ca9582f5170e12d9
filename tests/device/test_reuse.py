"""Residuals that serve for several steps, on a card: nothing waits for it, numbers come down when they are there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_controlnet.engine import reuse
from lib_controlnet.engine.reuse import read_later

from .passes import FAMILIES, ROWS, Made, Studio, unit
from .pretend import pretended

STEPS = 12
COMPUTED, WHOLE = [1, 2, 4, 7, 10], [1, 2, 7]
"""Of these denoiser calls, where what call 2 has changed by is within the budget for one call and not for two, and all
later changes are; and those for all rows."""


class Streams:
    """Stands in for `torch.cuda`: how many events were recorded, and which of them were looked at after how many."""

    def __init__(self) -> None:
        self.recorded = 0
        self.looked_at: list[tuple[int, int]] = []

    def Event(self) -> _Event:  # noqa: N802 (as torch.cuda has it)
        return _Event(self)

    def current_stream(self, device: torch.device) -> str:
        assert device == torch.device("cuda", 0)
        return "now"


class _Event:
    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._number = 0

    def record(self, stream: str) -> None:
        assert stream == "now"
        self._streams.recorded += 1
        self._number = self._streams.recorded

    def synchronize(self) -> None:
        assert self._number, "an event that was never recorded"
        self._streams.looked_at.append((self._number, self._streams.recorded))


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    streams = Streams()
    monkeypatch.setattr(reuse, "read_later", partial(read_later, streams=streams))
    monkeypatch.setattr(reuse, "FEWEST", 3)
    return streams


@pytest.fixture(scope="module")
def studio_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Studio]:
    made: dict[tuple[str, str], Studio] = {}

    def get(family: str, config: str) -> Studio:
        if (family, config) not in made:
            folder = Path(tmp_path_factory.mktemp("models"))
            made[family, config] = Studio(folder, FAMILIES[family][1][config], family)
        return made[family, config]

    return get


def _equal(first: Made, second: Made) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.outputs, second.outputs, strict=True))


@pytest.mark.parametrize(
    ("family", "config"), [("controlnet", "SD1"), ("controlnet", "SDXL"), ("controlnet_union", "SD1")]
)
def test_nothing_waits_for_the_card(studio_of: Any, streams: Streams, family: str, config: str) -> None:
    """Every call has other prompts in these passes, which a card is not asked about: the processor is not either."""
    studio, units = studio_of(family, config), [unit(preprocessor="none", reuse_control=1.0)]
    full = studio.made([unit(preprocessor="none")], steps=STEPS)
    with pretended() as card:
        made = studio.made(units, card=card, steps=STEPS)
    assert not [event for events in made.events[1:] for event in events if event.waits]
    whole = [a + 1 for a, (b, c) in enumerate(zip(made.outputs, full.outputs, strict=True)) if torch.equal(b, c)]
    assert whole == WHOLE
    assert streams.recorded == len(COMPUTED) - 1  # the first has nothing to be compared with
    # Calls 2, 4, 7 and 10 are looked at in calls 4, 6, 9 and 12, before what the next ones measure is recorded.
    assert streams.looked_at == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_the_numbers_are_the_processors(studio_of: Any, streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    studio, units = studio_of("controlnet", "SD1"), [unit(preprocessor="none", reuse_control=1.0)]
    monkeypatch.setattr(reuse, "_read", lambda _step: ())  # as on the card: prompts are not compared
    expected = studio.made(units, steps=STEPS, rows=ROWS["batch with an AND"])
    with pretended() as card:
        made = studio.made(units, card=card, steps=STEPS, rows=ROWS["batch with an AND"])
    assert _equal(made, expected)


def test_where_nothing_can_be_read_without_a_wait_every_second_call_is_computed(studio_of: Any) -> None:
    studio, units = studio_of("controlnet", "SD1"), [unit(preprocessor="none", reuse_control=1.0)]
    full = studio.made([unit(preprocessor="none")], steps=12)
    with pretended("mps") as card:
        made = studio.made(units, card=card, steps=12)
    whole = [a + 1 for a, (b, c) in enumerate(zip(made.outputs, full.outputs, strict=True)) if torch.equal(b, c)]
    assert whole == [1, *range(2, 13, 4)]  # 4, 8 and 12 for the cond rows
    assert not [event for events in made.events[1:] for event in events if event.waits]


def test_kept_residuals_leave_the_card_with_the_job(studio_of: Any, streams: Streams) -> None:
    studio = studio_of("controlnet", "SD1")
    left: list[int] = []
    for budget in (0.0, 1.0):
        with pretended() as card:
            studio.made([unit(preprocessor="none", reuse_control=budget)], card=card, steps=4)
            left.append(card.memory.live)
    assert left[0] == left[1]


def test_a_family_without_such_residuals_is_as_before_and_says_so(tmp_path: Path) -> None:
    studio = Studio(tmp_path, FAMILIES["t2i_adapter"][1]["SD1"], "t2i_adapter")
    plain = studio.made([unit(preprocessor="none")], steps=3)
    assert _equal(plain, studio.made([unit(preprocessor="none", reuse_control=1.0)], steps=3))
    assert _equal(plain, studio.made([unit(preprocessor="none")], steps=3, settings={"controlnet_reuse_control": 1.0}))


def test_a_later_number_is_the_value() -> None:
    read = read_later(torch.tensor(0.25))
    assert read is not None
    assert read() == 0.25
