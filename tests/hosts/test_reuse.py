"""Reuse control in whole jobs of the embedded host: when it computes, what it says, and what it leaves."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest
import torch

from lib_controlnet.hosts.webui.effects import effect_words

from .conftest import Host, pixels, unit


@pytest.fixture
def computed(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The denoiser calls that are computed, in jobs where nothing changes and no prompt is looked at."""
    reuse = importlib.import_module("sd_controlnet.engine.reuse")  # as the host has mounted it
    bound_class = importlib.import_module("sd_controlnet.families.controlnet").BoundControlNet
    turns: list[int] = []
    original = bound_class.residuals

    def residuals(bound: Any, step: Any) -> Any:
        turns.append(step.turn)
        return original(bound, step)

    monkeypatch.setattr(bound_class, "residuals", residuals)
    monkeypatch.setattr(reuse, "change_of", lambda *_: torch.zeros(()))
    monkeypatch.setattr(reuse, "_read", lambda _step: ())
    return turns


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 2, 4, 6, 8, 10]),
        ({"prompt": "[a red heart:a blue star:0.5]"}, [1, 2, 4, 6, 7, 8, 10]),  # calls 7 to 10 hear the star
        ({"prompt": "a heart", "negative_prompt": "[cold:warm:2]"}, [1, 2, 4, 5, 7, 9]),
        ({"sampler_name": "DDIM"}, [1, 2, 4, 6, 8]),  # nine calls, as the host samples it
        ({"steps": 4}, [1, 2, 3, 4]),
        ({"steps": 12}, [1, 2, 5, 8, 11]),
        ({"steps": 12, "sampler_name": "Euler a"}, [1, 2, 5, 8, 11]),
    ],
)
def test_when_a_job_computes(host: Host, computed: list[int], settings: dict[str, Any], expected: list[int]) -> None:
    host.txt2img(unit(reuse_control=0.3), **{"steps": 10, **settings})
    assert computed == expected


def test_the_hires_pass_is_counted_apart(host: Host, computed: list[int]) -> None:
    host.txt2img(
        unit(reuse_control=0.3), steps=8, enable_hr=True, hr_scale=2, hr_upscaler="Latent", hr_second_pass_steps=8
    )
    assert computed[:5] == [1, 2, 4, 6, 8]
    assert computed[5:8] == [1, 2, 4]


def test_it_is_said_and_nothing_of_it_stays(host: Host) -> None:
    plain, before = host.txt2img(steps=6), host.txt2img(unit(), steps=6)
    reused = host.txt2img(unit(reuse_control=1.0), steps=6)
    assert "Reuse Control: 1" in reused.infotexts[0]
    assert "Reuse Control" not in before.infotexts[0]
    (told,), (full,) = (json.loads(made.js())["controlnet"] for made in (reused, before))
    assert told["effect"]["passes"][0]["computed"] == 4  # 1, 2, 4 and 6
    assert told["effect"]["passes"][0]["halved"] == 0
    longer = json.loads(host.txt2img(unit(reuse_control=1.0), steps=11).js())["controlnet"][0]
    assert longer["effect"]["passes"][0]["computed"] == 5  # 1, 2, 5, 8 and 11
    assert longer["effect"]["passes"][0]["halved"] == 2  # 5 and 11
    assert "computed" not in full["effect"]["passes"][0]
    assert not np.array_equal(pixels(reused), pixels(before))
    assert np.array_equal(pixels(host.txt2img(unit(), steps=6)), pixels(before))
    assert np.array_equal(pixels(host.txt2img(steps=6)), pixels(plain))
    few = host.txt2img(unit(reuse_control=1.0), steps=3)
    assert "only 3 calls of the model" in few.infotexts[0]
    assert np.array_equal(pixels(few), pixels(host.txt2img(unit(), steps=3)))


def test_the_line_under_the_pictures_says_how_often(host: Host) -> None:
    for steps, said in ((6, "computed in 4 of 6 calls"), (11, "computed in 5 of 11 calls (2 of them without the")):
        made = host.txt2img(unit(reuse_control=1.0), steps=steps)
        words = effect_words(json.loads(made.js())["controlnet"][0])
        assert said in words
        assert ("without the negative prompt" in words) == (steps > 10)
    assert "computed" not in effect_words(json.loads(host.txt2img(unit(), steps=6).js())["controlnet"][0])
