"""Find weight in whole jobs of the demo: its target is reached on a pair of docs/measure.md."""

from __future__ import annotations

from dataclasses import replace

from standalone.demo.data import HELD_OUT_SEED
from standalone.demo.embedded import embedded
from standalone.demo.find_weight import Found, search
from standalone.demo.shapes import pictures


def test_the_middle_between_without_and_with_control_is_reached() -> None:
    with embedded() as app:
        found = search(app, pictures(1, HELD_OUT_SEED)[0], pair=0, steps=6)
    assert found.floor < 0.4 < 0.7 < found.most
    assert found.target == round((found.floor + found.most) / 2, 4)
    assert 0 < found.weight < 1
    assert found.within


def test_within_is_neither_short_nor_too_much_nor_late() -> None:
    good = Found(pair=0, floor=0.1, most=0.9, target=0.5, weight=0.4, adherence=0.52, jobs=8)
    assert good.within
    assert not replace(good, adherence=0.54).within
    assert not replace(good, adherence=0.46).within
    assert not replace(good, jobs=9).within
