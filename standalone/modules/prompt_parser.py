"""Prompts: emphasis, AND composition, prompt editing, and the conditions made from them."""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from modules.prompt_schedule import schedule
from torch import Tensor

ScheduledPromptConditioning = namedtuple("ScheduledPromptConditioning", ["end_at_step", "cond"])

ATTENTION = re.compile(r"\\[()\[\]\\]|\\|[(\[)]|]|:\s*([+-]?[.\d]+)\s*\)|[^\\()\[\]:]+|:", re.S)
BREAK = re.compile(r"\s*\bBREAK\b\s*", re.S)
AND = re.compile(r"\bAND\b")
WEIGHT = re.compile(r"^((?:\s|.)*?)(?:\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+)))?\s*$")


class SdConditioning(list):
    """Prompts with the size of the picture they are for."""

    def __init__(
        self,
        prompts: Iterable[str],
        is_negative_prompt: bool = False,
        width: int | None = None,
        height: int | None = None,
        copy_from: Any = None,
    ) -> None:
        super().__init__(prompts)
        source = prompts if copy_from is None else copy_from
        self.is_negative_prompt = is_negative_prompt or getattr(source, "is_negative_prompt", False)
        self.width = width or getattr(source, "width", None)
        self.height = height or getattr(source, "height", None)


@dataclass(eq=False)
class ComposableScheduledPromptConditioning:
    """One sub-prompt of an AND prompt."""

    schedules: list[ScheduledPromptConditioning]
    weight: float = 1.0


@dataclass(eq=False)
class MulticondLearnedConditioning:
    """Conditions of a batch: `batch[image][sub-prompt]`."""

    shape: tuple[int, ...]
    batch: list[list[ComposableScheduledPromptConditioning]]


class DictWithShape(dict):
    """A condition of several tensors; its shape is the text's."""

    @property
    def shape(self) -> torch.Size:
        return self["crossattn"].shape


def get_learned_conditioning_prompt_schedules(
    prompts: Iterable[str], base_steps: int, hires_steps: int | None = None, use_old_scheduling: bool = False
) -> list[list[list[Any]]]:
    """Per prompt [[last step, text], ...], e.g. "a [b:3]" in 10 steps: [[3, "a "], [10, "a b"]]."""
    made: dict[str, list[list[Any]]] = {}
    for prompt in prompts:
        if prompt not in made:
            made[prompt] = schedule(prompt, base_steps, hires_steps, use_old_scheduling)
    return [made[prompt] for prompt in prompts]


def get_learned_conditioning(
    model: Any,
    prompts: SdConditioning | list[str],
    steps: int,
    hires_steps: int | None = None,
    use_old_scheduling: bool = False,
) -> list[list[ScheduledPromptConditioning]]:
    """Per prompt its conditions with the step at which each ends."""
    schedules = get_learned_conditioning_prompt_schedules(prompts, steps, hires_steps, use_old_scheduling)
    made: dict[str, list[ScheduledPromptConditioning]] = {}
    for prompt, parts in zip(prompts, schedules, strict=True):
        if prompt in made:
            continue
        conds = model.get_learned_conditioning(SdConditioning([text for _, text in parts], copy_from=prompts))
        made[prompt] = [ScheduledPromptConditioning(end, _pick(conds, i)) for i, (end, _) in enumerate(parts)]
    return [made[prompt] for prompt in prompts]


def _pick(conds: Any, index: int) -> Any:
    return {k: v[index] for k, v in conds.items()} if isinstance(conds, dict) else conds[index]


def get_multicond_prompt_list(
    prompts: SdConditioning | list[str],
) -> tuple[list[list[tuple[int, float]]], SdConditioning, dict[str, int]]:
    """AND prompts split: per prompt (index into the flat list, weight); the flat list without repeats."""
    positions: dict[str, int] = {}
    indexes: list[list[tuple[int, float]]] = []
    for prompt in prompts:
        row: list[tuple[int, float]] = []
        for part in AND.split(prompt):
            match = WEIGHT.search(part)
            text, weight = match.groups() if match else (part, None)
            row.append((positions.setdefault(text, len(positions)), float(weight) if weight is not None else 1.0))
        indexes.append(row)
    return indexes, SdConditioning(positions, copy_from=prompts), positions


def get_multicond_learned_conditioning(
    model: Any,
    prompts: SdConditioning | list[str],
    steps: int,
    hires_steps: int | None = None,
    use_old_scheduling: bool = False,
) -> MulticondLearnedConditioning:
    """Conditions of prompts that may be composed with AND."""
    indexes, flat, _ = get_multicond_prompt_list(prompts)
    learned = get_learned_conditioning(model, flat, steps, hires_steps, use_old_scheduling)
    batch = [[ComposableScheduledPromptConditioning(learned[i], weight) for i, weight in row] for row in indexes]
    return MulticondLearnedConditioning(shape=(len(prompts),), batch=batch)


def _at_step(entries: list[ScheduledPromptConditioning], step: int) -> Any:
    return next((x.cond for x in entries if step <= x.end_at_step), entries[0].cond)


def reconstruct_cond_batch(c: list[list[ScheduledPromptConditioning]], current_step: int) -> Any:
    """The conditions of this step as one fresh tensor (B, N, D) (or dict of tensors)."""
    conds = [_at_step(entries, current_step) for entries in c]
    if isinstance(conds[0], dict):
        return DictWithShape({k: torch.stack([x[k] for x in conds]) for k in conds[0]})
    return torch.stack(conds)


def stack_conds(tensors: list[Tensor]) -> Tensor:
    """(B, N, D) of tensors (n, D); shorter ones repeat their last token."""
    longest = max(x.shape[0] for x in tensors)
    return torch.stack([torch.vstack([x, x[-1:].repeat(longest - x.shape[0], 1)]) for x in tensors])


def reconstruct_multicond_batch(c: MulticondLearnedConditioning, current_step: int) -> tuple[list[Any], Any]:
    """Per image [(row, weight), ...], and all rows of this step."""
    rows: list[Any] = []
    conds_list: list[list[tuple[int, float]]] = []
    for prompts in c.batch:
        conds_list.append([(len(rows) + i, x.weight) for i, x in enumerate(prompts)])
        rows += [_at_step(x.schedules, current_step) for x in prompts]
    if isinstance(rows[0], dict):
        return conds_list, DictWithShape({k: stack_conds([x[k] for x in rows]) for k in rows[0]})
    return conds_list, stack_conds(rows).to(device=rows[0].device, dtype=rows[0].dtype)


def parse_prompt_attention(text: str) -> list[list[Any]]:
    """[[text, weight], ...]: (a) is 1.1, [a] is 1/1.1, (a:1.3) is 1.3; `BREAK` has weight -1.

    Brackets multiply; backslash escapes them; brackets left open reach to the end.
    """
    found: list[list[Any]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(kind: str, factor: float) -> None:
        for item in found[opened[kind].pop() :]:
            item[1] *= factor

    for match in ATTENTION.finditer(text):
        token, weight = match.group(0), match.group(1)
        if token[0] == "\\":
            found.append([token[1:], 1.0])
        elif token in opened:
            opened[token].append(len(found))
        elif weight is not None and opened["("]:
            close("(", float(weight))
        elif token == ")" and opened["("]:
            close("(", 1.1)
        elif token == "]" and opened["["]:
            close("[", 1 / 1.1)
        else:
            parts = BREAK.split(token)
            for i, part in enumerate(parts):
                found += ([["BREAK", -1]] if i else []) + [[part, 1.0]]
    for kind, factor in (("(", 1.1), ("[", 1 / 1.1)):
        while opened[kind]:
            close(kind, factor)
    return _merged(found or [["", 1.0]])


def _merged(items: list[list[Any]]) -> list[list[Any]]:
    """Neighbours of equal weight joined."""
    result: list[list[Any]] = []
    for text, weight in items:
        if result and result[-1][1] == weight:
            result[-1][0] += text
        else:
            result.append([text, weight])
    return result
