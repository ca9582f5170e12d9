"""How much work one request may ask for; a larger one is refused and told the limit."""

from __future__ import annotations

from ..core.errors import UnitError

IMAGES = 100
"""Pictures or poses."""

PEOPLE = 1000
"""In all poses together, animals counted."""

PIXELS = 8192 * 8192
"""Of all pictures of a request together."""


class PixelBudget:
    """The pixels that a request has left."""

    def __init__(self, pixels: int = PIXELS) -> None:
        self._all = self._left = pixels

    def spend(self, height: int, width: int) -> None:
        """Raises UnitError where a picture of this size is too much beside those before it."""
        self._left -= height * width
        if self._left < 0:
            raise UnitError(
                "the pictures of a request are too large together",
                found=f"more than {self._all // 1_000_000} megapixels, with the last of {width}x{height}",
                remedy=f"send fewer or smaller ones: at most {self._all // 1_000_000} megapixels in one request",
            )


def check_count(what: str, number: int, limit: int) -> None:
    """Raises UnitError where a request has too many of something."""
    if number > limit:
        raise UnitError(
            f"there are too many {what} in a request",
            found=f"{number} {what}",
            remedy=f"send at most {limit} in one request",
        )
