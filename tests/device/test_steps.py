"""From the second denoiser step on nothing waits for the card, whatever rows, units, effects and types there are."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_controlnet.core.hints import hint_from_map
from lib_controlnet.core.modes import ControlMode, ResizeMode
from lib_controlnet.core.step import Step
from lib_controlnet.families.base import Runtime
from lib_controlnet.families.registry import discover, load_model, own_controls
from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.operations import layout_of
from tests.engine.tiny import tiny_unet
from tests.families.driving import settings

from .passes import (
    CONFIGS,
    EMBEDDED,
    FAMILIES,
    RESIDUALS,
    ROWS,
    SIZE,
    UNBOUNDED,
    Generation,
    Made,
    Studio,
    Types,
    base_weights,
    data_sheets,
    effect_preprocessors,
    half_mask,
    picture,
    unit,
)
from .pretend import pretended

FLOAT = Types()
HALVES = [Types(unet, net) for unet, net in product((torch.float32, torch.float16, torch.bfloat16), repeat=2)][1:]
FIRST = {"preprocessor": "none"}
SOME = ("none", "reference_adain+attn", "inpaint_only", "tile_colorfix+sharp", "revision_clipvision")
SECOND = {"preprocessor": "none", "model": "second"}


def check_steps(made: Made) -> None:
    assert [[event for event in events if event.kind != "cast"] for events in made.events[1:]] == [[]] * len(
        made.events[1:]
    )


def check(studio: Studio, units: list[Any], kind: str = "cuda", types: Types = FLOAT, **given: Any) -> None:
    """Two passes, on the processor and on a card, are equal to the bit, and no step after the first waits."""
    expected = studio.made(units, types=types, **given)
    with pretended(kind) as card:
        made = studio.made(units, card=card, types=types, **given)
        check_steps(made)
    assert all(torch.isfinite(output).all() for output in made.outputs)
    assert all(torch.equal(*pair) for pair in zip(made.outputs, expected.outputs, strict=True))


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def studios(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[tuple[str, UNetConfig], Studio] = {}

    def get(family: str, config: UNetConfig) -> Studio:
        if (family, config) not in made:
            made[family, config] = Studio(Path(tmp_path_factory.mktemp("models")), config, family)
        return made[family, config]

    return get


def test_every_family_has_a_file_here() -> None:
    """A new family adds the line that writes its file, and is held to all that follows."""
    assert set(FAMILIES) == {family.id for family in discover()}


def test_every_effect_has_a_preprocessor() -> None:
    assert {data_sheets()[name].effect for name in effect_preprocessors()} == set(own_controls())


@pytest.mark.parametrize(
    ("name", "rows"), [*(("SD1", rows) for rows in ROWS), ("SDXL", "guidance"), ("SDXL", "batch with an AND")]
)
def test_rows_of_every_kind(studios: Any, family: str, name: str, rows: str) -> None:
    fits = FAMILIES[family][1]
    if name not in fits:
        pytest.skip("there is none for such a checkpoint")
    check(studios(family, fits[name]), [unit(**FIRST)], rows=ROWS[rows])


UNITS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "two units": ([FIRST, SECOND], {}),
    "prompt is more important": ([{**FIRST, "control_mode": ControlMode.prompt}], {}),
    "control is more important": ([{**FIRST, "control_mode": ControlMode.control}], {}),
    "a region": ([{**FIRST, "region_mask": half_mask()}], {}),
    "a hint for each picture": ([{**FIRST, "image": None, "mask": None}], {}),
    "a unit for each picture": ([FIRST, SECOND], {"unit_per_image": True}),
    "shuffled": ([{"preprocessor": "shuffle"}], {}),
    "hires pass": ([FIRST], {"is_hr_pass": True}),
}


@pytest.mark.parametrize(
    ("units", "rows"),
    [
        *((units, "batch with an AND") for units in UNITS),
        *((units, "AND of unequal length") for units in list(UNITS)[:3]),
    ],
)
def test_units_of_every_kind(studios: Any, family: str, units: str, rows: str) -> None:
    fields, given = UNITS[units]
    if units == "a region" and family in UNBOUNDED:
        pytest.skip("acts on the whole picture, and says so")
    units_ = [unit(index, **each) for index, each in enumerate(fields)]
    check(studios(family, FAMILIES[family][1]["SD1"]), units_, rows=ROWS[rows], **given)


def test_models_come_block_by_block_where_they_can(studios: Any, family: str) -> None:
    """Low VRAM with "compute block by block": what is called in parts comes as a whole."""
    studio, asked = studios(family, FAMILIES[family][1]["SD1"]), [unit(**FIRST, low_vram=True)]
    expected = studio.made(asked)
    with pretended() as card:
        made = studio.made(asked, card=card, settings={"controlnet_stream_blocks": True})
    assert all(torch.equal(*pair) for pair in zip(made.outputs, expected.outputs, strict=True))


def test_inpainting_checkpoints(studios: Any, family: str) -> None:
    """Their U-Nets take nine channels."""
    if family == "control_lora":
        pytest.skip("made for four channels, it refuses a checkpoint of nine: its first layer is the checkpoint's")
    studio = studios(family, replace(FAMILIES[family][1]["SD1"], in_channels=9))
    free = ("none", "reference_only", "reference_adain+attn")
    for preprocessor in free if family in EMBEDDED else (*free, "inpaint_only", "tile_colorfix+sharp"):
        check(studio, [unit(preprocessor=preprocessor)], rows=ROWS["batch"])


@pytest.mark.parametrize("rows", ["guidance", "AND of unequal length"])
@pytest.mark.parametrize("preprocessor", effect_preprocessors())
def test_effects(studios: Any, preprocessor: str, rows: str) -> None:
    config = CONFIGS["SDXL" if data_sheets()[preprocessor].effect == "revision" else "SD1"]
    check(studios("controlnet", config), [unit(preprocessor=preprocessor)], rows=ROWS[rows])


@pytest.mark.parametrize("preprocessor", effect_preprocessors())
def test_effects_with_a_hint_for_each_picture(studios: Any, preprocessor: str) -> None:
    config = CONFIGS["SDXL" if data_sheets()[preprocessor].effect == "revision" else "SD1"]
    asked = unit(preprocessor=preprocessor, image=None, mask=half_mask())
    check(studios("controlnet", config), [asked], rows=ROWS["batch with an AND"], is_hr_pass=True)


@pytest.mark.parametrize("types", HALVES, ids=str)
def test_types_alike_and_different(studios: Any, family: str, types: Types) -> None:
    """A card refuses operands of two types; timesteps come in the U-Net's, in which 999 may be 1000."""
    check(studios(family, FAMILIES[family][1]["SD1"]), [unit(**FIRST), unit(1, **SECOND)], types=types)


@pytest.mark.parametrize("type_", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("preprocessor", effect_preprocessors())
def test_effects_in_half_precision(studios: Any, preprocessor: str, type_: torch.dtype) -> None:
    config = CONFIGS["SDXL" if data_sheets()[preprocessor].effect == "revision" else "SD1"]
    check(studios("controlnet", config), [unit(preprocessor=preprocessor)], types=Types(type_, type_))


@pytest.mark.parametrize("preprocessor", SOME)
def test_mps_has_all_that_a_step_needs(studios: Any, preprocessor: str) -> None:
    config = CONFIGS["SDXL" if preprocessor.startswith("revision") else "SD1"]
    check(studios("controlnet", config), [unit(preprocessor=preprocessor)], kind="mps")


@pytest.mark.parametrize("preprocessor", SOME)
def test_what_a_step_runs_does_not_depend_on_values(studios: Any, preprocessor: str) -> None:
    """The same kernels at every step, of which none is waited for: what a CUDA graph needs to be captured."""
    config = CONFIGS["SDXL" if preprocessor.startswith("revision") else "SD1"]
    with pretended() as card:
        made = studios("controlnet", config).made([unit(preprocessor=preprocessor)], card=card, steps=4)
        check_steps(made)
    assert made.kernels[1] == made.kernels[2] == made.kernels[3]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weights_and_residuals_lie_as_the_unets(studios: Any, family: str, layout: torch.memory_format) -> None:
    """`--opt-channelslast`: a sum of two layouts would read one of them against the grain."""
    if family in EMBEDDED:
        pytest.skip("it has neither convolutions nor residuals")
    studio = studios(family, FAMILIES[family][1]["SD1"])
    unet = tiny_unet(studio.config).to(memory_format=layout)
    assert layout_of(unet) is layout
    runtime = Runtime(torch.device("cpu"), torch.float32, base_weights(studio.config), layout=layout_of(unet))
    model: Any = load_model(studio.folder / "first.safetensors", runtime, discover())
    weights = [weight for weight in model.net.parameters() if weight.dim() == 4]
    assert weights
    assert all(weight.is_contiguous(memory_format=layout) for weight in weights)
    if layout is torch.channels_last and family in RESIDUALS:
        generation = Generation(studio.config, runtime, ())
        asked = settings(checkpoint=generation.checkpoint)
        bound = model.bind([hint_from_map(picture(1), SIZE, SIZE, ResizeMode.just_resize)], asked)
        x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 7, studio.config.context_dim)
        control = bound.residuals(Step(x, torch.tensor([9.0, 9.0]), text, None, (True, False), (0, 0), 0.0))
        assert all(residual[:1].is_contiguous(memory_format=layout) for residual in control.outputs())
    check(studio, [unit(**FIRST)], types=Types(layout=layout))
