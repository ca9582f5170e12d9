"""Weights that change over a pass, from row to row and from picture to picture, in every kind of control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_controlnet.core.errors import UnitError
from lib_controlnet.core.image_prompt import WeightType
from lib_controlnet.core.modes import ControlMode, InputMode
from lib_controlnet.core.schedule import WeightCurve
from lib_controlnet.core.step import Pass
from lib_controlnet.families.registry import discover
from tests.device.passes import (
    CONFIGS,
    FAMILIES,
    ROWS,
    UNBOUNDED,
    Made,
    Studio,
    data_sheets,
    effect_preprocessors,
    picture,
    unit,
)
from tests.device.pretend import pretended

STEPS = 4
FALL = WeightCurve(((0.0, 1.3), (1.0, 0.1)))
HALF = WeightCurve(((0.0, 1.0), (0.3, 1.0), (0.5, 0.0)))
STEPLESS = {"recolor_luminance", "recolor_intensity", "revision_clipvision", "revision_ignore_prompt"}


@pytest.fixture(scope="module")
def studio_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Studio]:
    made: dict[tuple[str, str], Studio] = {}

    def get(family: str = "controlnet", name: str = "SD1") -> Studio:
        if (family, name) not in made:
            folder = Path(tmp_path_factory.mktemp("models"))
            made[family, name] = Studio(folder, FAMILIES[family][1].get(name, CONFIGS[name]), family)
        return made[family, name]

    return get


def _equal(first: Made, second: Made) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(first.outputs, second.outputs, strict=True)]


def _plain(studio: Studio, **given: Any) -> Made:
    return studio.made([], steps=STEPS, **given)


@pytest.mark.parametrize("family", sorted(family.id for family in discover()))
def test_each_step_is_as_with_the_weight_that_the_curve_has_there(studio_of: Any, family: str) -> None:
    """Bit for bit: the curve is read once a step and the weight goes the way of any other."""
    studio = studio_of(family, next(iter(FAMILIES[family][1])))
    if family in UNBOUNDED:
        with pytest.raises(UnitError, match="unit 0, weight_schedule"):
            studio.made([unit(preprocessor="none", weight_schedule=FALL)])
        return
    curved = studio.made([unit(preprocessor="none", weight_schedule=FALL)], steps=STEPS)
    for number in range(STEPS):
        weight = FALL.at(number / STEPS)
        single = studio.made([unit(preprocessor="none", weight=weight)], steps=STEPS)
        assert torch.equal(curved.outputs[number], single.outputs[number])
    assert _equal(curved, studio.made([unit(preprocessor="none", weight=1.3)], steps=STEPS)) == [True, *[False] * 3]


@pytest.mark.parametrize("family", sorted(family.id for family in discover()))
def test_a_level_curve_is_the_plain_weight(studio_of: Any, family: str) -> None:
    studio = studio_of(family, next(iter(FAMILIES[family][1])))
    level = WeightCurve(((0.1, 0.7), (0.6, 0.7)))
    for rows in ("guidance", "AND of unequal length"):
        units = [unit(preprocessor="none", weight=2.0, weight_schedule=level), unit(1, preprocessor="none")]
        plain = [unit(preprocessor="none", weight=0.7), unit(1, preprocessor="none")]
        assert all(_equal(studio.made(units, rows=ROWS[rows]), studio.made(plain, rows=ROWS[rows])))


@pytest.mark.parametrize("preprocessor", [name for name in effect_preprocessors() if name not in STEPLESS])
def test_effects_of_preprocessors_follow_a_curve(studio_of: Any, preprocessor: str) -> None:
    studio = studio_of()
    curved = studio.made([unit(preprocessor=preprocessor, weight_schedule=FALL)], steps=STEPS)
    for number in range(STEPS):
        one = unit(preprocessor=preprocessor, weight=FALL.at(number / STEPS))
        assert torch.equal(curved.outputs[number], studio.made([one], steps=STEPS).outputs[number])


@pytest.mark.parametrize("preprocessor", sorted(STEPLESS))
def test_what_has_one_weight_for_all_steps_refuses_a_curve_and_takes_a_level_one(
    studio_of: Any, preprocessor: str
) -> None:
    studio = studio_of(name="SDXL")
    level = WeightCurve(((0.0, 0.6),))
    same = [studio.made([unit(preprocessor=preprocessor, **fields)]) for fields in _level_fields(level)]
    assert all(_equal(*same))
    for fields, field in (({"weight_schedule": FALL}, "weight_schedule"), ({"uncond_weight": 0.5}, "uncond_weight")):
        with pytest.raises(UnitError) as caught:
            studio.made([unit(preprocessor=preprocessor, **fields)])
        assert (caught.value.unit, caught.value.field) == (0, field)


def _level_fields(level: WeightCurve) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"weight_schedule": level}, {"weight": level.peak}


def test_every_effect_is_tried_one_way_or_the_other() -> None:
    assert set(effect_preprocessors()) >= STEPLESS
    assert {data_sheets()[name].effect for name in effect_preprocessors()} >= {"reference", "recolor", "revision"}


def test_where_the_curve_is_zero_nothing_is_computed(studio_of: Any) -> None:
    studio = studio_of()
    calls: list[float] = []
    with pretended() as card:
        made = studio.made([unit(preprocessor="none", weight_schedule=HALF)], steps=STEPS, card=card)
        calls = [sum(kernels.values()) for kernels in made.kernels]
    with pretended() as card:
        bare = [sum(kernels.values()) for kernels in _plain(studio, card=card).kernels]
    assert [ours > theirs for ours, theirs in zip(calls, bare, strict=True)] == [True, True, False, False]
    assert _equal(made, _plain(studio)) == [False, False, True, True]


STRENGTHS: dict[str, dict[str, Any]] = {
    "curve": {"weight_schedule": HALF, "uncond_weight": 0.4},
    "no uncond": {"uncond_weight": 0.0, "weight_schedule": FALL},
    "pictures": {"batch_weights": (0.3, 1.0, 0.0)},
    "all": {"batch_weights": (0.3, 1.0, 0.5), "uncond_weight": 1.5, "region_mask": picture(3)[:, :, 0]},
}


@pytest.mark.parametrize(
    ("strengths", "rows", "preprocessor"),
    [
        *((name, "batch with an AND", "none") for name in STRENGTHS),
        ("all", "AND of unequal length", "none"),
        ("all", "batch with an AND", "reference_adain+attn"),
        ("pictures", "batch with an AND", "tile_colorfix+sharp"),
    ],
)
def test_no_step_after_the_first_waits_for_the_card(
    studio_of: Any, strengths: str, rows: str, preprocessor: str
) -> None:
    studio, count, fields = studio_of(), len(ROWS[rows].conds), STRENGTHS[strengths]
    if "batch_weights" in fields:
        fields = {**fields, "batch_weights": fields["batch_weights"][:count]}
    units = [unit(preprocessor=preprocessor, **fields)]
    given: dict[str, Any] = {"rows": ROWS[rows], "batch_size": count, "steps": 3}
    expected = studio.made(units, **given)
    with pretended() as card:
        made = studio.made(units, card=card, **given)
    waits = [[event for event in events if event.kind != "cast"] for events in made.events]
    assert waits[1:] == [[], []]
    assert all(_equal(made, expected))


@pytest.mark.parametrize("other", [{}, {"weight_schedule": HALF}, {"batch_weights": (0.5,)}], ids=str)
def test_units_on_one_union_file_follow_their_own_curves(studio_of: Any, other: dict[str, Any]) -> None:
    """They pass its network together, in another proportion at every step."""
    studio = studio_of("controlnet_union")
    units = [unit(preprocessor="none", weight_schedule=FALL), unit(1, preprocessor="none", **other)]
    curved = studio.made(units, steps=STEPS)
    for number in range(STEPS):
        single = [unit(preprocessor="none", weight=FALL.at(number / STEPS)), replace(units[1], weight_schedule=None)]
        if "weight_schedule" in other:
            single[1] = replace(single[1], weight=HALF.at(number / STEPS))
        assert torch.equal(curved.outputs[number], studio.made(single, steps=STEPS).outputs[number])
    with pretended() as card:
        made = studio.made(units, card=card, steps=STEPS)
    assert all(_equal(made, curved))
    waits = [[event for event in events if event.kind != "cast"] for events in made.events[1:]]
    if "weight_schedule" in other:
        del waits[1]  # the other unit leaves, as where its range ends: the one that is left is looked at anew
    assert not any(waits)


def test_the_hires_pass_has_its_own_curve_or_that_of_the_base_pass(studio_of: Any) -> None:
    studio = studio_of()

    def hires(**fields: Any) -> Made:
        return studio.made([unit(preprocessor="none", **fields)], steps=STEPS, is_hr_pass=True)

    assert all(_equal(hires(weight_schedule=FALL), hires(hr_weight_schedule=FALL)))
    assert all(_equal(hires(weight_schedule=HALF, hr_weight_schedule=FALL), hires(weight_schedule=FALL)))
    base = [unit(preprocessor="none", hr_weight_schedule=FALL, weight=0.4)]
    assert all(_equal(studio.made(base), studio.made([unit(preprocessor="none", weight=0.4)])))


def test_layer_weights_are_multiplied_by_the_curve(studio_of: Any) -> None:
    studio = studio_of()
    layers = tuple(0.1 * number for number in range(5))
    curved = studio.made([unit(preprocessor="none", layer_weights=layers, weight_schedule=FALL)], steps=STEPS)
    for number in range(STEPS):
        scaled = tuple(FALL.at(number / STEPS) * weight for weight in layers)
        one = studio.made([unit(preprocessor="none", layer_weights=scaled)], steps=STEPS)
        assert torch.equal(curved.outputs[number], one.outputs[number])


def test_the_weight_of_uncond_rows(studio_of: Any) -> None:
    studio, plain = studio_of(), _plain(studio_of())

    def made(**fields: Any) -> Made:
        return studio.made([unit(preprocessor="none", **fields)], steps=STEPS)

    (mixed,), (strong,), (weak,) = ([part.outputs[0]] for part in (made(uncond_weight=0.25), made(), made(weight=0.25)))
    assert torch.equal(mixed[0], strong[0])
    assert torch.equal(mixed[1], weak[1])
    silent = made(uncond_weight=0.0).outputs[0]
    assert torch.equal(silent[1], plain.outputs[0][1])
    assert torch.allclose(silent[0], strong[0], atol=1e-5)
    with pytest.raises(UnitError, match="uncond_weight"):
        made(uncond_weight=0.5, control_mode=ControlMode.control)


def test_each_picture_of_a_batch_has_its_strength(studio_of: Any) -> None:
    studio, rows = studio_of(), ROWS["batch"]

    def made(*strengths: float, **fields: Any) -> Tensor:
        given = {"batch_weights": strengths or None, **fields}
        return studio.made([unit(preprocessor="none", **given)], rows=rows, batch_size=2).outputs[0]

    plain, half, strong = studio.made([], rows=rows).outputs[0], made(weight=0.5), made()
    mixed = made(0.5, 1.0)
    assert torch.equal(mixed[::2], half[::2])
    assert torch.equal(mixed[1::2], strong[1::2])
    assert torch.equal(made(0.0, 1.0)[::2], plain[::2])
    assert torch.equal(made(1.0, 1.0), strong)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"batch_weights": (1.0, 0.5)}, "batch_weights", "2 weights for a batch of 1"),
        ({"batch_weights": ()}, "batch_weights", "0 weights for a batch of 1"),
        ({"weight_schedule": FALL, "layer_weights": (1.0,) * 4}, "advanced_weighting", "4 weights for 5 layers"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(studio_of: Any, fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(UnitError, match=words) as caught:
        studio_of().made([unit(preprocessor="none", **fields)])
    assert (caught.value.unit, caught.value.field) == (0, field)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weight_schedule": WeightCurve(((0.0, 0.0),))}, "its weight schedule is 0 everywhere"),
        ({"weight_schedule": HALF, "guidance_start": 0.5}, "is 0 at each of the 3 steps that fall into 0.5 to 1"),
        ({"batch_weights": (0.0,)}, "all its batch weights are 0"),
        ({"weight": 0.0}, "its weight is 0"),
    ],
)
def test_a_unit_that_is_idle_by_choice_says_why(studio_of: Any, fields: dict[str, Any], words: str) -> None:
    from lib_controlnet.engine.session import ControlSession
    from lib_controlnet.families.base import Runtime
    from tests.device.passes import SIZE, Generation
    from tests.engine.test_session import step

    studio = studio_of()
    generation = Generation(studio.config, Runtime(torch.device("cpu"), torch.float32), [])
    session = ControlSession(studio._services({}), generation)
    session.prepare([unit(preprocessor="none", **fields)])
    session.begin(Pass.base, SIZE, SIZE)
    for progress in (0.0, 0.5, 0.75):
        assert session.begin_call(step(progress=progress))[1] is None
        session.done()
    (idle,) = session.end(3)
    assert words in idle.text


def test_a_weight_of_zero_does_not_silence_a_curve(studio_of: Any) -> None:
    studio = studio_of()
    curved = studio.made([unit(preprocessor="none", weight=0.0, weight_schedule=FALL)])
    assert all(_equal(curved, studio.made([unit(preprocessor="none", weight_schedule=FALL)])))


def test_merged_pictures_share_a_curve() -> None:
    from lib_controlnet.core.batch import parted, together

    merged = unit(input_mode=InputMode.merge, images=(picture(1), picture(2), picture(3)), weight_schedule=FALL)
    parts = parted(merged)
    assert [part.weight_schedule.at(0.0) for part in parts if part.weight_schedule] == pytest.approx([1.3 / 3] * 3)
    again = together(parts)
    assert (again.weight_schedule, again.weight) == (FALL, 1.0)


def test_what_a_unit_asks_of_its_image_prompt_reaches_the_model(studio_of: Any) -> None:
    """Types and factors change the picture; a place that the U-Net has not is refused."""
    studio = studio_of("ip_adapter")
    weak = unit(preprocessor="none", ip_weight_type=WeightType.weak_output, weight=0.5)
    factors = unit(preprocessor="none", ip_layer_weights=((0, 1.0), (1, 1.0)), weight=0.5)
    plain, made, picked = (studio.made([one]) for one in (unit(preprocessor="none", weight=0.5), weak, factors))
    assert not any(_equal(made, plain))
    assert not any(_equal(picked, plain))
    with pytest.raises(UnitError, match="unit 0, ip_layer_weights"):
        studio.made([unit(preprocessor="none", ip_layer_weights=((99, 1.0),))])
