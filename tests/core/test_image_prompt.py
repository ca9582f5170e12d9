"""Weight types against the tables of the peers, written out."""

from __future__ import annotations

from typing import Any

import pytest

from lib_controlnet.core.errors import UnitError
from lib_controlnet.core.image_prompt import (
    ImagePrompt,
    Slots,
    WeightType,
    factors,
    swapped,
)

SD1, SDXL = Slots(6, 1, 9), Slots(4, 1, 6)
W, C = 0.8, 0.5
"""Weight, and the boosts that are tried."""

TABLES: dict[tuple[str, str], dict[int, float]] = {
    ("style transfer", "SDXL"): {6: W},
    ("style transfer", "SD1"): {**dict.fromkeys(range(4), W), **dict.fromkeys(range(9, 16), W)},
    ("composition", "SDXL"): {3: W},
    ("composition", "SD1"): {4: 0.25 * W, 5: W},
    ("strong style transfer", "SDXL"): {t: W for t in range(11) if t != 3},
    ("strong style transfer", "SD1"): {t: W for t in range(16) if t not in (4, 5)},
    ("style and composition", "SDXL"): {3: C, 6: W},
    ("style and composition", "SD1"): {
        **dict.fromkeys(range(4), W),
        4: 0.25 * C,
        5: C,
        **dict.fromkeys(range(9, 16), W),
    },
    ("strong style and composition", "SDXL"): {t: C if t == 3 else W for t in range(11)},
    ("strong style and composition", "SD1"): {t: C if t in (4, 5) else W for t in range(16)},
    ("style transfer precise", "SDXL"): {3: C, 6: W},
    ("style transfer precise", "SD1"): {
        **dict.fromkeys(range(4), W),
        4: 0.25 * C,
        5: C,
        **dict.fromkeys(range(9, 16), W),
    },
    ("composition precise", "SDXL"): {t: {3: W, 6: C}.get(t, 0.1 * C) for t in range(11)},
    ("composition precise", "SD1"): {
        t: {4: 0.25 * W, 5: W, 6: 0.1 * C, 7: 0.1 * C, 8: 0.1 * C}.get(t, C) for t in range(16)
    },
}


def weights(slots: Slots, **wishes: Any) -> list[float]:
    return [W * factor for factor in factors(ImagePrompt(**wishes), slots, W)]


@pytest.mark.parametrize(("name", "base"), TABLES)
def test_tables(name: str, base: str) -> None:
    slots = SD1 if base == "SD1" else SDXL
    got = weights(slots, weight_type=WeightType(name), style_boost=C, composition_boost=C)
    wanted = [TABLES[name, base].get(t, 0.0) for t in range(slots.count)]
    assert got == pytest.approx(wanted)


@pytest.mark.parametrize("slots", [SD1, SDXL, Slots(2, 1, 4)])
def test_eased(slots: Slots) -> None:
    n = slots.count
    curves = {
        "ease in": [1 - t / n for t in range(n)],
        "ease out": [t / n for t in range(n)],
        "ease in-out": [1 - abs(t - n / 2) / (n / 2) for t in range(n)],
        "reverse in-out": [abs(t - n / 2) / (n / 2) for t in range(n)],
    }
    for name, curve in curves.items():
        wanted = [W * (0.05 + 0.95 * part) for part in curve]
        assert weights(slots, weight_type=WeightType(name)) == pytest.approx(wanted)


def test_parts() -> None:
    assert weights(SDXL, weight_type=WeightType.weak_middle) == pytest.approx([W] * 4 + [0.2 * W] + [W] * 6)
    assert weights(SDXL, weight_type=WeightType.weak_input) == pytest.approx([0.2 * W] * 4 + [W] * 7)
    assert weights(SD1, weight_type=WeightType.weak_output) == pytest.approx([W] * 7 + [0.2 * W] * 9)
    assert weights(SD1, weight_type=WeightType.strong_middle) == pytest.approx([0.2 * W] * 6 + [W] + [0.2 * W] * 9)


def test_without_boosts_the_weight_counts() -> None:
    assert weights(SDXL, weight_type=WeightType.style_and_composition)[3] == pytest.approx(W)


def test_a_text_of_factors_overrides_the_type_but_not_the_precise_ones() -> None:
    given = ((2, 0.5), (6, -1.0))
    wanted = [0.0] * 11
    wanted[2], wanted[6] = 0.5 * W, -W
    assert weights(SDXL, weight_type=WeightType.ease_in, factors=given) == pytest.approx(wanted)
    precise = weights(SDXL, weight_type=WeightType.style_precise, factors=given)
    assert precise == weights(SDXL, weight_type=WeightType.style_precise)


def test_weights_that_are_listed_are_not_touched() -> None:
    assert factors(ImagePrompt(weight_type=WeightType.style, listed=True), SDXL, W) == (1.0,) * 11


def test_the_precise_types_change_sides() -> None:
    assert swapped(ImagePrompt(weight_type=WeightType.style_precise), SD1) == {4, 5}
    assert swapped(ImagePrompt(weight_type=WeightType.composition_precise), SDXL) == set(range(11)) - {3}
    assert not swapped(ImagePrompt(weight_type=WeightType.composition), SDXL)


def test_what_a_unet_does_not_have_is_named() -> None:
    with pytest.raises(UnitError, match="style transfer"):
        factors(ImagePrompt(weight_type=WeightType.style), Slots(2, 1, 4), W)
    with pytest.raises(UnitError, match=r"11.*from 0"):
        factors(ImagePrompt(factors=((11, 1.0),)), SDXL, W)
