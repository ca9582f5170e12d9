"""What a map is taken for without a prompt, and which remedy is ranked first where that is not what the prompt says."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_controlnet.measure.agreement import Attempt, best_first, content_words, shared_words

from .conftest import Host
from .test_metering import lines

WORDS = (
    "water in a glass",
    "a tractor on farmland",
    "a red circle on gray",
    "a red circle on yellow",
    "a red square on yellow",
)


class Told:
    """Trials that a table decides: (adherence, which of WORDS the picture shows)."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch, table: dict[str, tuple[float, int]]) -> None:
        self.table = table
        self.asked: list[tuple[dict[str, Any], str | None]] = []
        module = sys.modules["sd_controlnet.hosts.webui.misread"]
        monkeypatch.setattr(module, "run_trial", self.run)
        monkeypatch.setattr(module, "follows", lambda _services, _first, unit, made: made.adherence(unit))
        interrogator = SimpleNamespace(interrogate=lambda picture: WORDS[np.asarray(picture)[0, 0, 0]])
        monkeypatch.setattr(host.app.modules("shared"), "interrogator", interrogator, raising=False)

    def run(self, p: Any, changes: Any, steps: int = 0, prompt: str | None = None) -> Any:
        del p, steps
        fields = {name: value for (_, name), value in changes.items()}
        self.asked.append((fields, prompt))
        key = "alone" if prompt is not None else next(iter(fields), "now")
        adherence, shown = self.table.get(key, (0.8, 0))
        trials = sys.modules["sd_controlnet.hosts.webui.trials"]
        return trials.Trial(Image.new("RGB", (8, 8), (shown, 0, 0)), {0: {"adherence": adherence, "pictures": []}})


SEEN = {"study": {"what": "seen", "unit": 0}}


def study(result: Any) -> dict[str, Any]:
    return json.loads(result.js())["controlnet_study"]


def test_a_trap_is_found_and_the_remedy_that_makes_both_agree_is_first(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(host, monkeypatch, {"alone": (0.9, 0), "now": (0.9, 0), "guidance_end": (0.7, 1), "weight": (0.4, 1)})
    result = host.txt2img(lines(), SEEN, prompt="a tractor, farmland")
    found = study(result)
    assert found["misread"] is True
    assert found["captions"] == {"empty": WORDS[0], "default": WORDS[0]}
    assert [one["remedy"] for one in found["remedies"][:2]] == ["earlier end", "lower weight"]
    assert found["remedies"][0]["fields"] == {"guidance_end": 0.6}
    assert (found["remedies"][0]["adherence"], found["remedies"][0]["agreement"]) == (0.7, 1.0)
    assert [prompt for _, prompt in told.asked[:3]] == ["", "a professional, detailed, high-quality image", None]
    tried = {one["remedy"] for one in found["remedies"]} - {"as it is"}
    assert len(told.asked) == 3 + len(tried)
    assert tried >= {"lower weight", "my prompt is more important", "later start", "earlier end", "higher thresholds"}
    assert "spare the deep layers" not in tried  # the tiny model has not 13 outputs
    assert 'taken for "water in a glass"' in result.comments
    assert "which is not what the prompt says" in result.comments
    assert (
        "remedy 1: earlier end [guidance_end = 0.6]: adherence 0.70, agreement with the prompt 1.00" in result.comments
    )


def test_what_the_map_brings_is_told_from_what_chance_brought(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word in common is no agreement where all captions have what the prompt does not say, and lack what it does."""
    told = Told(host, monkeypatch, {"alone": (0.9, 2), "now": (0.9, 3), "guidance_start": (0.8, 4)})
    found = study(host.txt2img(lines(), SEEN, prompt="a red square on yellow"))
    assert (found["misread"], found["brings"], found["lost"]) == (True, ["circle"], ["square"])
    assert found["remedies"][0]["remedy"] == "later start"
    assert {"threshold_a": 178, "threshold_b": 228} in [fields for fields, _ in told.asked]


def test_where_both_agree_nothing_is_tried(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(host, monkeypatch, {"alone": (0.9, 1)})
    found = study(host.txt2img(lines(), SEEN, prompt="tractors and (farmland:1.2)"))
    assert found["misread"] is False
    assert "remedies" not in found
    assert len(told.asked) == 3


@pytest.mark.parametrize("prompt", ["", "a red heart"])
def test_without_an_interrogator_that_is_said(host: Host, prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no picture is made for it."""
    monkeypatch.setattr(sys.modules["sd_controlnet.hosts.webui.misread"], "run_trial", None)
    result = host.txt2img(lines(), SEEN, prompt=prompt)
    assert study(result)["misread"] is None
    assert study(result)["captions"] == {"empty": None, "default": None}
    assert "no interrogator" in result.comments


def test_an_interrogator_that_fails_ends_it_after_one_picture(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(host, monkeypatch, {})
    broken = SimpleNamespace(interrogate=lambda _picture: "<error>")
    monkeypatch.setattr(host.app.modules("shared"), "interrogator", broken)
    result = host.txt2img(lines(), SEEN, prompt="a red heart")
    assert "cannot be said: the interrogator failed" in result.comments
    assert study(result)["misread"] is None
    assert len(told.asked) == 1


@pytest.mark.parametrize(
    ("caption", "prompt", "share"),
    [
        ("a red heart on a yellow background", "(red:1.3) hearts, masterpiece", 1.0),
        ("two cherries", "a cherry <lora:fruit:0.8>", 1.0),
        ("water in a glass", "farmland, a tractor", 0.0),
        ("a dog", "a dog and a cat", 0.5),
        ("anything", "a high quality photo of it", None),
        ("anything", "", None),
    ],
)
def test_words_in_common(caption: str, prompt: str, share: float | None) -> None:
    assert shared_words(caption, prompt) == share


def test_words_that_name_things() -> None:
    assert content_words("A GLASS of water, best quality") == {"glass", "water"}


def test_unknown_agreement_is_ranked_by_adherence() -> None:
    attempts = [Attempt("a", 0.5, None), Attempt("b", 0.9, None)]
    assert [one.remedy for one in best_first(attempts)] == ["b", "a"]


def test_deep_layers_are_spared_where_the_model_has_the_usual_ones() -> None:
    from lib_controlnet.core.units import ControlNetUnit
    from lib_controlnet.hosts.webui.misread import remedies

    found = remedies(ControlNetUnit(weight=0.5), 13)
    weights = [float(one) for one in str(found["spare the deep layers"]["layer_weights"]).split(",")]
    assert weights == [0.5] * 7 + [0.2] * 6
    assert "spare the deep layers" not in remedies(ControlNetUnit(weight=0.5), 10)
    assert "earlier end" not in remedies(ControlNetUnit(guidance_start=0.9, guidance_end=0.9), 10)
