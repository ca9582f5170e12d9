"""Tokens against the reference tokenizer's published ids, and what a prompt may leave open."""

from __future__ import annotations

import random

from standalone.demo.data import training_prompt
from standalone.demo.prompts import Said, known_tokens, phrase, tokenize
from standalone.demo.shapes import pictures


def test_tokens_of_stable_diffusion() -> None:
    """Ids of OpenAI's simple_tokenizer; the end token fills up, as SD1 pads."""
    row = tokenize(["a red heart on a gray background"])[0].tolist()
    assert row[:9] == [49406, 320, 736, 1936, 525, 320, 7048, 5994, 49407]
    assert set(row[9:]) == {49407}
    assert len(row) == 77


def test_every_training_prompt_is_made_of_known_words() -> None:
    known, rng = set(known_tokens()), random.Random(5)
    prompts = [training_prompt(picture, rng) for picture in pictures(200, 6) for _ in range(2)]
    assert set(tokenize(prompts).unique().tolist()) <= known
    assert any(picture_free(prompt) for prompt in prompts)


def picture_free(prompt: str) -> bool:
    return "background" not in prompt


def test_articles() -> None:
    rng = random.Random(0)
    said = {phrase(Said("square", "orange"), rng) for _ in range(50)}
    assert any(text.startswith("an orange square") for text in said)
    assert not any("a orange" in text for text in said)
