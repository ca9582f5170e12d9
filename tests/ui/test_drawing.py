"""Which preprocessor gets a drawing, and what is said of pictures that are something else than the model expects."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotator.sd_controlnet.palettes import ADE20K, ade20k
from lib_controlnet.core.drawings import Look
from lib_controlnet.engine.services import Services
from lib_controlnet.ui.drawing import (
    palette_html,
    picture_note,
    reader,
    reader_when_changed,
    remembered,
    remembered_mask,
)
from lib_controlnet.ui.events import choose_type
from tests.surface_services import make_services

PHOTO = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
LIGHT = np.zeros((40, 40, 3), np.uint8)
LIGHT[20] = 255


@pytest.fixture
def everything(tmp_path: Any) -> Services:
    """With all preprocessors that can run here."""
    from dataclasses import replace

    from annotator.sd_controlnet.registry import discover
    from annotator.sd_controlnet.spec import Runtime
    from lib_controlnet.engine.preprocess import PreprocessRunner

    registry: Any = discover(None)
    return replace(make_services(tmp_path), annotators=registry, preprocess=PreprocessRunner(registry, Runtime))


def drawn(look: Look) -> str:
    return f"drawn: {look.value}"


@pytest.mark.parametrize("picture", [LIGHT, 255 - LIGHT, PHOTO, LIGHT * 0])
def test_what_is_remembered_of_a_picture(picture: Any) -> None:
    for mark, how in (("drawn", "drawn"), ("", "given"), ("anything", "given")):
        prefix, _, look = remembered(mark, Image.fromarray(picture)).partition(": ")
        assert (prefix, Look(look).value) == (how, look)
    assert remembered("drawn", None) == ""


@pytest.mark.parametrize("kind", ["Canny", "Lineart", "MLSD", "Scribble", "SoftEdge", "Segmentation", "Depth", "All"])
@pytest.mark.parametrize("look", [Look.light_lines, Look.flat, Look.empty, Look.photograph])
def test_a_drawing_goes_to_the_model_as_it_is(everything: Services, kind: str, look: Look) -> None:
    found = reader(everything, kind, drawn(look))
    assert found is not None
    assert found.id == "none"


@pytest.mark.parametrize("kind", ["Canny", "Lineart", "MLSD", "Scribble"])
def test_dark_lines_are_turned_over_into_exactly_their_opposite(everything: Services, kind: str) -> None:
    found = reader(everything, kind, drawn(Look.dark_lines))
    assert found is not None
    picture = np.full((512, 512, 3), 255, np.uint8)
    picture[200:204, 100:400] = 0
    result = everything.preprocess.run(
        found.label, picture, None, resolution=512, pixel_perfect=None, threshold_a=-1, threshold_b=-1, seed=0
    )
    assert (result.map == 255 - picture).all()


@pytest.mark.parametrize("kind", ["Inpaint", "IP-Adapter", "Reference", "Shuffle", "Recolor", "Revision"])
def test_types_that_work_on_pictures_keep_their_own(everything: Services, kind: str) -> None:
    assert reader(everything, kind, drawn(Look.light_lines)) is None


@pytest.mark.parametrize("look", list(Look))
def test_an_uploaded_picture_changes_nothing(everything: Services, look: Look) -> None:
    assert reader(everything, "Scribble", f"given: {look.value}") is None
    assert reader(everything, "Scribble", "") is None


def test_only_a_new_drawing_or_other_lines_change_the_choice(everything: Services) -> None:
    def changed(before: str, now: str) -> str | None:
        found = reader_when_changed(everything, "Scribble", before, now)
        return None if found is None else found.id

    light, dark, empty = (drawn(look) for look in (Look.light_lines, Look.dark_lines, Look.empty))
    assert changed("", empty) == "none"
    assert changed("given: a photograph", light) == "none"
    assert changed(empty, light) is None  # the first stroke: what was chosen since stays
    assert changed(light, light) is None
    assert changed(light, dark) == "scribble"
    assert changed(dark, light) == "none"
    assert changed(light, "given: a photograph") is None


def test_choosing_a_type_keeps_a_drawing_as_it_is(everything: Any) -> None:
    assert choose_type(everything, "Scribble", False, drawn(Look.light_lines))[0]["value"] == "none"
    assert choose_type(everything, "Scribble", False)[0]["value"] != "none"


@pytest.mark.parametrize(
    ("look", "preprocessor", "kind", "said"),
    [
        ("drawn: white lines on black", "none", "Scribble", "goes to the model as it is"),
        ("drawn: dark lines on white", "invert", "Canny", "dark lines become white"),
        ("drawn: white lines on black", "canny", "Canny", '"canny" makes the map'),
        ("given: white lines on black", "none", "Scribble", ""),
        ("given: dark lines on white", "none", "Scribble", '! choose "scribble'),
        ("given: dark lines on white", "none", "SoftEdge", "! invert it on the canvas"),
        ("given: dark lines on white", "none", "Depth", ""),
        ("given: white lines on black", "scribble", "Scribble", '! choose "none"'),
        ("given: white lines on black", "invert", "All", '! choose "none"'),
        ("given: a photograph", "none", "Canny", '! choose "canny"'),
        ("given: a photograph", "invert", "Lineart", "! looks like a photograph"),
        ("given: a photograph", "none", "Depth", ""),
        ("given: a photograph", "canny", "Canny", ""),
        ("drawn: white lines on black", "scribble", "Scribble", '! choose "none"'),
        ("given: a picture without detail", "none", "Scribble", "! is empty"),
        ("given: a picture without detail", "canny", "Canny", "! is empty"),
        ("given: a picture without detail", "reference_only", "Reference", ""),
        ("", "none", "Scribble", ""),
        ("given: a photograph", "gone", "Canny", ""),
    ],
)
def test_what_is_said(everything: Services, look: str, preprocessor: str, kind: str, said: str) -> None:
    note = unescape(picture_note(everything, look.replace("a picture without detail", "empty"), "", preprocessor, kind))
    words = said.removeprefix("! ")
    assert (words in note) if words else note == ""
    assert ("cnet-warn" in note) == said.startswith("! ")


def half_masked() -> Any:
    return Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 20, 1).repeat(8, 0))


@pytest.mark.parametrize(
    ("preprocessor", "settings", "regional", "said"),
    [
        ("canny", {}, False, True),
        ("none", {}, False, True),
        ("none", {"controlnet_ignore_noninpaint_mask": True}, False, False),
        ("none", {}, True, False),
        ("inpaint_only", {}, False, False),
    ],
)
def test_a_mask_that_takes_the_pictures_place_is_said(
    everything: Any, preprocessor: str, settings: dict[str, Any], regional: bool, said: bool
) -> None:
    from dataclasses import replace

    services = replace(everything, setting=lambda key, default: settings.get(key, default), masks_are_regions=regional)
    masked = remembered_mask(half_masked())
    note = picture_note(services, "given: a photograph", masked, preprocessor, "All")
    assert ("in place of the picture" in note) is said


def test_a_blank_or_full_mask_says_nothing() -> None:
    for value in (0, 255):
        assert remembered_mask(Image.new("L", (8, 8), value)) == ""
    assert remembered_mask(None) == ""


def test_the_palette_of_the_page_is_the_preprocessors(services: Services) -> None:
    named = json.loads(unescape(re.search('data-cnet-palette="(.*?)"', palette_html(ade20k())).group(1)))  # type: ignore[union-attr]
    assert len(named) == 150
    assert {colour for _, colour in named} == {"#" + bytes(colour).hex() for colour in ADE20K}
    known = {
        "sky": "#06e6e6",
        "person": "#96053d",
        "tree": "#04c803",
        "wall": "#787878",
        "car": "#0066c8",
        "flag": "#5c00ff",
    }
    assert {name: dict(map(tuple, named))[name] for name in known} == known  # from SceneParsing's own table
