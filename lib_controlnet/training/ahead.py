"""What the next pass needs, made while this one computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """`make(number)` for numbers that mostly follow each other, each made one call ahead in a thread.

    All is made in that one thread, one after the other, so `make` needs no locks; what it makes must follow from the
    number alone, and then it does not matter when. What `make` raises is raised by the call that asks for it.
    """

    def __init__(self, make: Callable[[int], Made]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "controlnet-data")
        self._next: tuple[int, Future[Made]] | None = None

    def __call__(self, number: int, *, more: bool) -> Made:
        """`more`: number + 1 will be wanted next."""
        ahead, self._next = self._next, None
        found = ahead[1] if ahead and ahead[0] == number else self._thread.submit(self._make, number)
        if more:
            self._next = number + 1, self._thread.submit(self._make, number + 1)
        return found.result()
