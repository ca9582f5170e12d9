"""Whether a picture shows what its prompt says, as far as a caption and CLIP can tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_EMPTY_WORDS = """
    a an the of in on at with and or to from for by is are was be it its this that there some one two very
    into over under near next up down out as his her their my your professional detailed high quality highly
    image photo photograph picture painting drawing illustration render style background foreground art
    artwork masterpiece best
"""
_WORD = re.compile(r"[^\W\d_]{3,}")
_WEIGHTED = re.compile(r"<[^>]*>|[()\[\]{}]|:[\d.]+")
"""Marks of A1111's prompts: extra networks, brackets, weights."""


def content_words(text: str) -> set[str]:
    """The words of a prompt or a caption that name things, in lower case and without a plural's s."""
    empty = _EMPTY_WORDS.split()
    words = _WORD.findall(_WEIGHTED.sub(" ", text).lower())
    return {_stem(word) for word in words if word not in empty}


def _stem(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def shared_words(caption: str, prompt: str) -> float | None:
    """Of the prompt's words the part that the caption has too, 0..1; None where the prompt names nothing."""
    wanted = content_words(prompt)
    return len(wanted & content_words(caption)) / len(wanted) if wanted else None


@dataclass(frozen=True)
class Reading:
    """What a map is taken for. foreign: what it brings although the prompt does not say it; lost: what the prompt says
    and the picture does not show."""

    foreign: tuple[str, ...]
    lost: tuple[str, ...]


def taken_for(prompt: str, alone: Sequence[str], own: str) -> Reading:
    """By captions of pictures that were drawn by the map without the prompt, and of the one with it.

    A word that all of them have is the map's doing, and not chance's, which chose what nobody said.
    """
    wanted, shown = content_words(prompt), content_words(own)
    held = set[str].intersection(*(content_words(text) for text in (*alone, own)))
    return Reading(tuple(sorted(held - wanted)), tuple(sorted(wanted - shown)))


@dataclass(frozen=True)
class Attempt:
    """A picture with a remedy: its adherence, and how well it agrees with the prompt (CLIP, or words of a caption)."""

    remedy: str
    adherence: float
    agreement: float | None


def best_first(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Those first in which map and prompt both hold: by the product, where agreement is unknown by adherence."""
    return sorted(attempts, key=lambda one: -one.adherence * (1.0 if one.agreement is None else one.agreement))
