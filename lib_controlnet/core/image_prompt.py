"""How a picture acts as a prompt: what a unit of an IP-Adapter asks for besides its weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from .errors import UnitError


class WeightType(str, Enum):
    """Which of the U-Net's transformers hear the picture, and how loud."""

    normal = "normal"
    ease_in = "ease in"
    ease_out = "ease out"
    ease_in_out = "ease in-out"
    reverse_in_out = "reverse in-out"
    weak_input = "weak input"
    weak_output = "weak output"
    weak_middle = "weak middle"
    strong_middle = "strong middle"
    style = "style transfer"
    composition = "composition"
    strong_style = "strong style transfer"
    style_and_composition = "style and composition"
    strong_style_and_composition = "strong style and composition"
    style_precise = "style transfer precise"
    composition_precise = "composition precise"


class Combine(str, Enum):
    """What becomes of several pictures in one unit."""

    concat = "concat"
    average = "average"
    norm_average = "norm average"
    add = "add"
    subtract = "subtract"


class EmbedsScaling(str, Enum):
    """What the weight multiplies: what comes of the attention, or keys and values before it."""

    v_only = "V only"
    k_v = "K+V"
    k_v_penalty = "K+V w/ C penalty"
    k_mean_v_penalty = "K+mean(V) w/ C penalty"


class Uncond(str, Enum):
    """What the rows of the negative prompt hear: nothing, noise, or a picture of their own."""

    zero = "zero"
    noise = "noise"
    picture = "picture"


@dataclass(frozen=True)
class ImagePrompt:
    """A unit's wishes.

    style_boost, composition_boost: weights of their own for these parts; 0 is the unit's weight. noise: how strong
    that of `Uncond.noise` is, in parts of the embedding's own spread. shortcut: how much the hidden states add
    (FaceID-plus v2). lora: strength of what a FaceID file adds to the U-Net's own attentions. factors: (place, factor)
    of each transformer that is to hear the picture; empty for the type's own. listed: the weight of each place is given
    otherwise, so that the type's and the factors do not count.
    """

    weight_type: WeightType = WeightType.normal
    style_boost: float = 0.0
    composition_boost: float = 0.0
    combine: Combine = Combine.concat
    scaling: EmbedsScaling = EmbedsScaling.v_only
    uncond: Uncond = Uncond.zero
    noise: float = 0.35
    shortcut: float = 1.0
    lora: float = 1.0
    factors: tuple[tuple[int, float], ...] = ()
    listed: bool = False


@dataclass(frozen=True)
class Slots:
    """The transformers of a U-Net in the order in which they are computed: encoder, middle, decoder."""

    inputs: int
    middles: int
    outputs: int

    @property
    def count(self) -> int:
        """All of them."""
        return self.inputs + self.middles + self.outputs

    @property
    def composition(self) -> tuple[int, ...]:
        """Those that decide where things are. Empty for a U-Net for which nobody knows."""
        return {(6, 1, 9): (4, 5), (4, 1, 6): (3,)}.get((self.inputs, self.middles, self.outputs), ())

    @property
    def style(self) -> tuple[int, ...]:
        """Those that decide how it looks."""
        known = {(6, 1, 9): (0, 1, 2, 3, *range(9, 16)), (4, 1, 6): (6,)}
        return known.get((self.inputs, self.middles, self.outputs), ())


def factors(prompt: ImagePrompt, slots: Slots, weight: float) -> tuple[float, ...]:
    """By what the unit's weight is multiplied in each transformer.

    `weight`: the unit's, of which a boost is a multiple. Raises UnitError where the type, or a place, is not there.
    """
    if prompt.listed or weight == 0.0:
        return (1.0,) * slots.count
    precise = prompt.weight_type in _PRECISE
    if prompt.factors and not precise:
        return _given(prompt.factors, slots)
    kind = prompt.weight_type
    if kind in _EASED:
        return tuple(0.05 + 0.95 * _EASED[kind](index / slots.count) for index in range(slots.count))
    if kind in _PARTS:
        inner, middle, outer = _PARTS[kind]
        return (inner,) * slots.inputs + (middle,) * slots.middles + (outer,) * slots.outputs
    if not slots.composition:
        raise UnitError(
            f'the weight type "{kind.value}" is known for SD 1.x, SD 2.x and SDXL only',
            field="ip_weight_type",
            found=f"a U-Net with transformers in {slots.inputs}+{slots.middles}+{slots.outputs} places",
            remedy="choose another weight type",
        )
    style = (prompt.style_boost or weight) / weight
    composition = (prompt.composition_boost or weight) / weight
    table = _picked(kind, slots, style, composition)
    return tuple(table.get(index, 0.0) for index in range(slots.count))


def swapped(prompt: ImagePrompt, slots: Slots) -> frozenset[int]:
    """The transformers in which the rows of the negative prompt hear the picture and the others nothing."""
    if prompt.weight_type is WeightType.style_precise:
        return frozenset(slots.composition)
    if prompt.weight_type is WeightType.composition_precise:
        return frozenset(range(slots.count)) - frozenset(slots.composition)
    return frozenset()


_PRECISE = (WeightType.style_precise, WeightType.composition_precise)
_WEAK = 0.2
_QUIET = 0.1
_EASED: Mapping[WeightType, Callable[[float], float]] = {
    WeightType.ease_in: lambda part: 1 - part,
    WeightType.ease_out: lambda part: part,
    WeightType.ease_in_out: lambda part: 1 - abs(2 * part - 1),
    WeightType.reverse_in_out: lambda part: abs(2 * part - 1),
}
_PARTS: Mapping[WeightType, tuple[float, float, float]] = {
    WeightType.normal: (1.0, 1.0, 1.0),
    WeightType.weak_input: (_WEAK, 1.0, 1.0),
    WeightType.weak_middle: (1.0, _WEAK, 1.0),
    WeightType.weak_output: (1.0, 1.0, _WEAK),
    WeightType.strong_middle: (_WEAK, 1.0, _WEAK),
}


def _picked(kind: WeightType, slots: Slots, style: float, composition: float) -> Mapping[int, float]:
    """cubiq's tables (ComfyUI_IPAdapter_plus), the older ones as in sd-webui-controlnet."""
    every = range(slots.count)
    placed, strong = slots.composition, len(slots.composition) > 1
    looks = dict.fromkeys(slots.style, 1.0)
    # Of SD 1.x's two places of the composition the first is the weaker.
    weaker = [0.25, 1.0] if strong else [1.0]
    arranged = dict(zip(placed, weaker, strict=True))
    if kind is WeightType.style:
        return looks
    if kind is WeightType.composition:
        return arranged
    if kind is WeightType.strong_style:
        return {index: 1.0 for index in every if index not in placed}
    if kind is WeightType.style_and_composition:
        return looks | {index: composition * part for index, part in arranged.items()}
    if kind is WeightType.strong_style_and_composition:
        return {index: composition if index in placed else 1.0 for index in every}
    if kind is WeightType.style_precise:
        return looks | {index: style * part for index, part in arranged.items()}
    quiet = dict.fromkeys(every, _QUIET * composition)
    return quiet | dict.fromkeys(slots.style, composition) | arranged


def _given(factors: Sequence[tuple[int, float]], slots: Slots) -> tuple[float, ...]:
    table = dict(factors)
    beyond = [index for index in table if index >= slots.count]
    if beyond:
        raise UnitError(
            "a layer weight is for a transformer that the U-Net does not have",
            field="ip_layer_weights",
            found=f"{beyond[0]}; there are {slots.count}, from 0",
            remedy=f"use numbers from 0 to {slots.count - 1}",
        )
    return tuple(table.get(index, 0.0) for index in range(slots.count))
