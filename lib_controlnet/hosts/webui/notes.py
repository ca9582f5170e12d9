"""What a job tells its user beside its pictures: under them, in the log, in the infotext and so in the API's answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from ...core.errors import plain_text
from ...core.infotext import is_unit_key

log = logging.getLogger("ControlNet")
NOTES = "Notes on ControlNet"
"""The generation parameter of the notes. The peers read every parameter that begins with "ControlNet" as a unit."""

ADHERENCE = "Adherence to ControlNet"
"""The generation parameter of how well a picture follows the maps of its units."""

_LONGEST = 1000
"""Letters of a note; it is repeated in every picture's infotext."""

_KEPT = "controlnet_notes"
"""The attribute of the host's processing object that holds what has been said of it."""


def say(p: Any, text: str, *, unit: int | None = None) -> None:
    """Tells the user of the job `p` one sentence, of `unit` where it is one's. Said once a job; never raises.

    Where it is shown depends on the host: each way is tried by itself, and the log is always one of them.
    """
    sentence = plain_text(text if unit is None else f"unit {unit}: {text}", _LONGEST)
    said = _said(p)
    if sentence in said:
        return
    said.append(sentence)
    log.warning("%s%s", sentence[:1].upper(), sentence[1:])
    _tried(lambda: _comment(p, f"ControlNet {sentence}"), "the comments")
    _tried(lambda: _keep(p, said), "the infotext")


def say_late(p: Any, processed: Any, text: str) -> None:
    """As `say`, when the job's result has been made, and its comments with it."""
    say(p, text)
    _tried(lambda: setattr(processed, "comments", "".join(f"{comment}\n" for comment in p.comments)), "the result")


def tell(p: Any, processed: Any, text: str) -> None:
    """A line under the pictures that is no warning: neither in the log nor among the notes. Never raises."""
    _tried(lambda: _comment(p, plain_text(text, _LONGEST)), "the comments")
    _tried(lambda: setattr(processed, "comments", "".join(f"{comment}\n" for comment in p.comments)), "the result")


def say_all(p: Any, texts: Iterable[str], *, unit: int | None = None) -> None:
    """Each of `texts` in turn; see `say`."""
    for text in texts:
        say(p, text, unit=unit)


def forget(p: Any) -> None:
    """A job begins: what earlier ones left with the same processing object (the host's batch tab, loops) or the same
    parameters (the cells of an X/Y/Z plot) is not its own, notes and units.
    """
    _tried(lambda: setattr(p, _KEPT, []), "the job")
    _tried(lambda: _without_ours(p), "the infotext")


def _without_ours(p: Any) -> None:
    params = p.extra_generation_params
    ours = {key for key in params if key in (NOTES, ADHERENCE) or is_unit_key(key)}
    if ours:  # a copy of `p` has the same dict, and what it says of itself stays
        p.extra_generation_params = {key: value for key, value in params.items() if key not in ours}


def _said(p: Any) -> list[str]:
    """The sentences of this job so far; a copy of `p` shares them."""
    said = getattr(p, _KEPT, None)
    if isinstance(said, list):
        return said
    said = []
    _tried(lambda: setattr(p, _KEPT, said), "the job")
    return said


def _comment(p: Any, text: str) -> None:
    if callable(getattr(p, "comment", None)):
        p.comment(text)
    elif isinstance(getattr(p, "comments", None), dict):  # hosts before `comment`
        p.comments[text] = 1


def _keep(p: Any, said: list[str]) -> None:
    p.extra_generation_params[NOTES] = " ".join(f"{text[:1].upper()}{text[1:]}" for text in said)


def _tried(way: Callable[[], object], place: str) -> None:
    try:
        way()
    except Exception as error:  # noqa: BLE001 (a host without this place must not lose the job for a note)
        log.debug("A note could not be put into %s: %s", place, error)
