"""Data made ahead of the step that needs it."""

from __future__ import annotations

import threading

import pytest

from lib_controlnet.training.ahead import Ahead


def test_the_next_is_made_while_this_one_is_used() -> None:
    made: list[int] = []
    second = threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if number == 8:
            second.set()
        return 10 * number

    ahead = Ahead(make)
    assert ahead(7, more=True) == 70
    assert second.wait(10)
    assert ahead(8, more=False) == 80
    assert ahead(3, more=False) == 30
    assert made == [7, 8, 3]


def test_what_was_made_for_another_number_is_not_taken() -> None:
    ahead = Ahead(str)
    ahead(0, more=True)
    assert ahead(5, more=True) == "5"
    assert ahead(6, more=False) == "6"


def test_an_error_comes_when_its_number_is_asked_for() -> None:
    ahead = Ahead(lambda number: 1 // (1 - number))
    assert ahead(0, more=True) == 1
    with pytest.raises(ZeroDivisionError):
        ahead(1, more=False)
