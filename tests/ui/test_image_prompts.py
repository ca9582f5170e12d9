"""What the panel says of pictures that act as prompts: bars by layer, and for which models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lib_controlnet.core.embeddings import CLIP_H, PULID
from lib_controlnet.core.units import IMAGE_PROMPT, ControlNetUnit
from lib_controlnet.engine.facts import FactReader, Facts
from lib_controlnet.families.base import Sheet
from lib_controlnet.families.registry import discover
from lib_controlnet.ui.image_prompts import draw_weights, shown_options
from tests.engine.tiny import SD1_SHAPED
from tests.families.ip_files import write


def _options(**fields: Any) -> list[Any]:
    given = {name: getattr(ControlNetUnit(), name) for name in IMAGE_PROMPT} | {"ip_layer_weights": ""} | fields
    return [given[name] for name in IMAGE_PROMPT]


def _bars(plot: str) -> list[float]:
    return [float(number) for number in re.findall(r"layer \d+: ([-\d.e]+)</title>", plot)]


@pytest.mark.parametrize(
    ("outputs", "fields", "expected"),
    [
        (16, {}, [0.8] * 16),
        (16, {"ip_weight_type": "weak input"}, [0.16] * 6 + [0.8] * 10),
        (11, {"ip_weight_type": "style transfer"}, [0.0] * 6 + [0.8] + [0.0] * 4),
        (
            11,
            {"ip_weight_type": "style and composition", "ip_composition_boost": 1.5},
            [0, 0, 0, 1.5, 0, 0, 0.8, *[0] * 4],
        ),
        (16, {"ip_weight_type": "composition"}, [0.0] * 4 + [0.2, 0.8] + [0.0] * 10),
        (11, {"ip_layer_weights": "3: 0.5, 6: 1"}, [0, 0, 0, 0.4, 0, 0, 0.8, *[0] * 4]),
    ],
)
def test_bars_are_the_weights_of_the_layers(outputs: int, fields: dict[str, Any], expected: list[float]) -> None:
    plot = draw_weights(outputs, 0.8, "", *_options(**fields))
    assert _bars(plot) == pytest.approx(expected, abs=1e-3)
    assert [plot.count(f'class="{kind}"') for kind in ("cnet-bar", "cnet-bar-inner", "cnet-bar-outer")] == (
        [6, 1, 9] if outputs == 16 else [4, 1, 6]
    )


def test_layer_weights_of_the_unit_go_before_its_type() -> None:
    plot = draw_weights(11, 0.8, ", ".join(["0.3"] * 11), *_options(ip_weight_type="style transfer"))
    assert _bars(plot) == pytest.approx([0.3] * 11)


def test_the_precise_types_say_who_hears_the_picture() -> None:
    assert "layer 3 act" in draw_weights(11, 1.0, "", *_options(ip_weight_type="style transfer precise"))
    assert "layers 4, 5 act" in draw_weights(16, 1.0, "", *_options(ip_weight_type="style transfer precise"))


def test_what_is_wrong_is_said_in_place_of_the_plot() -> None:
    assert "has no number" in draw_weights(11, 1.0, "", *_options(ip_layer_weights="3"))
    assert "does not have" in draw_weights(11, 1.0, "", *_options(ip_layer_weights="12: 1"))


@pytest.mark.parametrize(
    ("embeddings", "shown"), [((), (False, False)), ((CLIP_H,), (True, False)), ((PULID,), (True, True))]
)
def test_options_are_shown_where_the_model_takes_them(embeddings: tuple[str, ...], shown: tuple[bool, bool]) -> None:
    facts = Facts("", "", 0, Sheet(11, "SDXL", lambda _base: True, embeddings=embeddings))
    assert tuple(update["visible"] for update in shown_options(facts)) == shown
    assert [update["visible"] for update in shown_options(None)] == [False, False]


def test_a_files_shapes_tell_that_it_takes_them(tmp_path: Path) -> None:
    facts = FactReader(discover()).read(write(tmp_path / "any.safetensors", "base", SD1_SHAPED))
    assert facts.sheet is not None
    assert facts.sheet.outputs == 16
    assert shown_options(facts)[0]["visible"]
