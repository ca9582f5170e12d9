"""The misread condition on the demo model: a drawing that it takes for another shape than the prompt says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from standalone import boot
from standalone.demo.run import MODELS
from standalone.demo.shapes import SIZE, coverage, pictures, place, unit_outline

from .captions import caption

PROMPT = "a red heart on a yellow background"


def plate() -> np.ndarray:
    """A dark heart on a round plate whose rim is hardly seen: canny's usual thresholds find both."""
    middle = (SIZE / 2, SIZE / 2)
    rim = coverage(place(unit_outline("circle"), middle, 50, 0))[..., None]
    heart = coverage(place(unit_outline("heart"), middle, 34, 0))[..., None]
    picture = (255 - 34 * rim) * (1 - heart) + 20 * heart
    return np.round(np.repeat(picture, 3, axis=2)).astype(np.uint8)


def test_the_interrogator_names_true_pictures() -> None:
    for picture in pictures(16, 777):
        words = f"a {picture.colour} {picture.shape} on a {picture.background} background"
        assert caption(Image.fromarray(picture.image)) == words


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    unit = {"enabled": True, "module": "canny", "model": "demo_canny", "image": plate(), "pixel_perfect": True}
    job = {"prompt": PROMPT, "seed": 0, "steps": 8, "cfg_scale": 4.0, "width": SIZE, "height": SIZE}
    controls: Path = MODELS / "controlnet"
    with boot(MODELS / "demo.safetensors", controls, nested=True, data_dir=tmp_path_factory.mktemp("data"),
              api=False, ui=False) as app:  # fmt: skip
        app.modules("shared").interrogator = SimpleNamespace(interrogate=caption)
        units = [unit, {"study": {"what": "seen", "unit": 0}}]
        result = app.txt2img({"ControlNet": units}, sampler_name="DDIM", **job)
        return result, json.loads(result.js())["controlnet_study"]


def test_the_trap_is_found(seen: Any) -> None:
    result, study = seen
    assert study["misread"] is True
    assert (study["brings"], study["lost"]) == (["circle"], ["heart"])
    assert 'it brings "circle" where the prompt says "heart"' in result.comments


def test_a_remedy_that_makes_prompt_and_map_agree_is_first(seen: Any) -> None:
    """Its picture is measured against the map with the rim, which it does not follow."""
    result, study = seen
    best, as_it_is = study["remedies"][0], study["now"]
    assert best["agreement"] == 1 > as_it_is["agreement"]
    assert best["adherence"] > 0.35
    assert f"remedy 1: {best['remedy']}" in result.comments
    by_words = {one["remedy"]: one for one in study["remedies"]}
    assert by_words["higher thresholds"]["agreement"] == 1
    assert by_words["higher thresholds"]["adherence"] < 0.7
    assert by_words["softer kind (Scribble)"]["fields"]["preprocessor"] == "scribble_xdog"
