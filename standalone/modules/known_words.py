"""Which words of a prompt a checkpoint has never seen.

A text encoder that was trained on few words has rows of zeros for all others: such a word changes nothing, and nobody
would be told. Checkpoints that were trained on all words have no such row.
"""

from __future__ import annotations

import re
from typing import Any

from modules import errors

_TAGS = re.compile(r"<[^<>]*>")
_WORDS = re.compile(r"[^\W\d_]+")
_SYNTAX = frozenset(("AND", "BREAK"))
_SHOWN = 60
_SAYS_NOTHING = frozenset(("and", "the", "with", "at", "by", "for", "from", "is", "it", "its", "to", "that", "this"))
"""Words that a picture does not show."""


def refuse_unknown(prompt: str, model: Any) -> None:
    """Raises WrongRequest, naming them, where the prompt has words that the checkpoint cannot know."""
    conditioner = getattr(model, "cond_stage_model", None)
    if conditioner is None and hasattr(model, "forge_objects"):
        conditioner = model.forge_objects.clip.cond_stage_model
    if conditioner is None or not hasattr(conditioner, "transformer"):
        return
    seen = _seen(conditioner)
    if seen is None:
        return
    unknown = [word for word in dict.fromkeys(_words(prompt)) if not _is_seen(word, conditioner.tokenizer, seen)]
    if unknown:
        named = ", ".join(f'"{word}"' for word in unknown)
        raise errors.WrongRequest(
            f"This checkpoint was never taught {named}: it would be passed over without a word. It knows: "
            f"{', '.join(_taught(conditioner.tokenizer, seen))}. Write with these, or choose another checkpoint."
        )


def _words(prompt: str) -> list[str]:
    return [
        word.lower()
        for word in _WORDS.findall(_TAGS.sub(" ", prompt))
        if word not in _SYNTAX and word.lower() not in _SAYS_NOTHING
    ]


def _seen(conditioner: Any) -> frozenset[int] | None:
    """The tokens whose embedding is not zero; None where that is (nearly) every one."""
    table = conditioner.transformer.get_input_embeddings().weight
    known = table.detach().abs().amax(dim=1) > 0
    if int(known.sum()) > len(known) // 2:
        return None
    return frozenset(known.nonzero().flatten().tolist())


def _is_seen(word: str, tokenizer: Any, seen: frozenset[int]) -> bool:
    return all(token in seen for token in tokenizer(word, add_special_tokens=False)["input_ids"])


def _taught(tokenizer: Any, seen: frozenset[int]) -> list[str]:
    """Whole words among the tokens, in the order of the alphabet."""
    names = [tokenizer.convert_ids_to_tokens(token) for token in seen]
    words = sorted(name.removesuffix("</w>") for name in names if re.fullmatch(r"[a-z]{2,}</w>", name))
    return [*words[:_SHOWN], *(["..."] if len(words) > _SHOWN else [])]
