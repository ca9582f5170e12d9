"""Prompt editing: `[from:to:when]`, `[to:when]`, `[from::when]`, `[a|b|c]`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*$")


@dataclass
class Edit:
    """`before` up to step `when`, `after` from then on."""

    before: list[Any]
    after: list[Any]
    when: int


@dataclass
class Alternation:
    """Another option every step."""

    options: list[list[Any]]


class NotASchedule(Exception):
    """The text does not follow the grammar; it is then a plain prompt."""


@dataclass(frozen=True)
class Timeline:
    """How the numbers in a prompt become steps: fractions of `steps`, or whole steps less `offset`."""

    steps: int
    step_offset: int
    fraction_offset: float
    old: bool

    def step(self, text: str) -> int:
        value = float(text)
        if self.old:
            value = value * self.steps if value < 1 else value
        elif "." in text:
            value = (value - self.fraction_offset) * self.steps
        else:
            value -= self.step_offset
        return min(self.steps, int(value))


class _Parser:
    def __init__(self, text: str, timeline: Timeline) -> None:
        self.text = text
        self.timeline = timeline

    def sequence(self, position: int, stop: str) -> tuple[list[Any], int]:
        """Nodes up to the first unbracketed character of `stop` (or the end), and where that is."""
        nodes: list[Any] = []
        while position < len(self.text) and self.text[position] not in stop:
            character = self.text[position]
            if character == "\\" and position + 1 < len(self.text):
                nodes.append(self.text[position : position + 2])
                position += 2
            elif character in "([":
                added, position = self.bracket(position)
                nodes += added
            elif character == "|":
                raise NotASchedule  # only allowed between the options of an alternation
            else:
                nodes.append(character)
                position += 1
        return nodes, position

    def bracket(self, start: int) -> tuple[list[Any], int]:
        """A bracket and what is in it; an unmatched bracket is text."""
        if self.text[start] == "(":
            inner, end = self.sequence(start + 1, ")]")
            if end < len(self.text) and self.text[end] == ")":
                return ["(", *inner, ")"], end + 1
            return ["("], start + 1
        parts: list[tuple[list[Any], str]] = []
        separators = ""
        position = start + 1
        while True:
            nodes, end = self.sequence(position, ":|])")
            if end >= len(self.text) or self.text[end] == ")":
                return ["["], start + 1
            parts.append((nodes, self.text[position:end]))
            position = end + 1
            if self.text[end] == "]":
                return self.square(parts, separators, start, position)
            separators += self.text[end]

    def square(
        self, parts: list[tuple[list[Any], str]], separators: str, start: int, position: int
    ) -> tuple[list[Any], int]:
        if not separators:
            return ["[", *parts[0][0], "]"], position
        if set(separators) == {"|"}:
            return [Alternation([nodes for nodes, _ in parts])], position
        number = NUMBER.match(parts[-1][1])
        if number and separators in (":", "::"):
            before = parts[0][0] if len(parts) == 3 else []
            return [Edit(before, parts[-2][0], self.timeline.step(number.group(1)))], position
        return ["["], start + 1


def _nodes(nodes: list[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        children = [node.before, node.after] if isinstance(node, Edit) else getattr(node, "options", [])
        for child in children:
            yield from _nodes(child)


def _text(nodes: list[Any], step: int) -> str:
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, Edit):
            parts.append(_text(node.before if step <= node.when else node.after, step))
        elif isinstance(node, Alternation):
            parts.append(_text(node.options[(step - 1) % len(node.options)], step))
        else:
            parts.append(node)
    return "".join(parts)


def schedule(prompt: str, base_steps: int, hires_steps: int | None, old: bool) -> list[list[Any]]:
    """[[last step, text], ...] of a prompt. In a hires pass numbers above 1 (or `base_steps`) count its steps."""
    second = hires_steps is not None and not old
    steps = hires_steps if second and hires_steps is not None else base_steps
    timeline = Timeline(steps, base_steps if second else 0, 1.0 if second else 0.0, old)
    try:
        nodes, _ = _Parser(prompt, timeline).sequence(0, "")
    except NotASchedule:
        return [[steps, prompt]]
    ends = {steps}
    for node in _nodes(nodes):
        if isinstance(node, Edit) and node.when >= 1:
            ends.add(node.when)
        elif isinstance(node, Alternation):
            ends.update(range(1, steps + 1))
    return [[end, _text(nodes, end)] for end in sorted(ends)]
