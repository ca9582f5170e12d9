"""Prompts of the demo world, their tokens, and what they say: which shape, which colour, which background."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch
from transformers import CLIPTokenizer

from .shapes import COLOURS, SHAPES

CLIP_FOLDER: Final = Path(__file__).resolve().parents[2] / "models" / "demo" / "clip"
TOKENS: Final = 77

PREFIXES: Final = ("", "", "", "a drawing of ", "a picture of ", "a photo of ", "an image of ", "an illustration of ")
BACKGROUNDS: Final = (
    " on a {} background",
    " on a {} background",
    ", {} background",
    " on {}",
    " in front of a {} background",
)
SUFFIXES: Final = (
    "",
    "",
    "",
    ", best quality",
    ", extremely detailed",
    ", high quality",
    ", masterpiece",
    ", a professional, detailed, high-quality image",
    ", best quality, extremely detailed",
    ", flat, simple",
)
NEUTRAL: Final = (
    "",
    "",
    "a professional, detailed, high-quality image",
    "best quality",
    "a drawing",
    "a picture",
    "a photo",
    "a shape",
    "a shape on a background",
    "best quality, extremely detailed",
    "an image",
    "a simple illustration",
    "lowres, bad quality, worst quality, blurry",
)


@dataclass(frozen=True)
class Said:
    """What a prompt fixes; None is left open."""

    shape: str | None = None
    colour: str | None = None
    background: str | None = None


@cache
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(str(CLIP_FOLDER))


def tokenize(prompts: list[str]) -> torch.Tensor:
    """(n, 77) int64: start, words, then the end token to the last place, as Stable Diffusion 1 pads."""
    return tokenizer()(prompts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt").input_ids


def phrase(said: Said, rng: random.Random) -> str:
    """One of the many ways to say it."""
    if said == Said():
        return rng.choice(NEUTRAL)
    words = " ".join(word for word in (said.colour, said.shape or ("shape" if said.colour else None)) if word)
    subject = f"{_article(words)} {words}" if words else ""
    place = rng.choice(BACKGROUNDS).format(said.background) if said.background else ""
    text = subject + place if subject else f"a {said.background} background"
    return rng.choice(PREFIXES) + text + rng.choice(SUFFIXES)


def known_tokens() -> list[int]:
    """The ids of every word in the phrases above; all other rows of the embedding stay zero."""
    rng = random.Random(0)
    texts = [
        phrase(Said(shape, colour, background), rng)
        for shape in (*SHAPES, None)
        for colour in (*COLOURS, None)
        for background in (*COLOURS, None)
        for _ in range(2)
    ]
    texts += [*NEUTRAL, *PREFIXES, *SUFFIXES, *(text.format("red") for text in BACKGROUNDS)]
    return sorted({int(token) for token in tokenize(texts).unique()})


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"
