"""A job finds out the weight that reaches a target, or floor and ceiling, before it makes its pictures."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from .conftest import Host, unit
from .test_metering import DRAWN, lines


def info(result: Any) -> dict[str, Any]:
    return json.loads(result.js())


def rising(monkeypatch: pytest.MonkeyPatch, bend: float = 1.0) -> list[float]:
    """Adherence that is 0.1 + 0.8 weight^bend, whatever the tiny model makes; the weights that were measured."""
    module = sys.modules["sd_controlnet.hosts.webui.metering"]
    original, seen = module.measure_picture, []

    def measured(runner: Any, pixels: Any, wanted: Any, detector: Any, inside: Any = None) -> Any:
        found = original(runner, pixels, wanted, detector, inside)
        score = found.score
        object.__setattr__(score, "adherence", 0.1 + 0.8 * min(seen[-1], 1.0) ** bend)
        return found

    def run(services: Any, p: Any, run: Any, pixels: Any, image: int) -> Any:
        seen.append(run.unit.weight)
        return keep(services, p, run, pixels, image)

    keep = module.measure_run
    monkeypatch.setattr(module, "measure_picture", measured)
    monkeypatch.setattr(module, "measure_run", run)
    return seen


def find(**fields: Any) -> dict[str, Any]:
    return {"study": {"what": "weight", "unit": 0, "target": 0.5, "steps": 1, **fields}}


@pytest.mark.parametrize("bend", [1.0, 0.5, 2.0])
def test_the_weight_that_reaches_a_target_is_found_and_used(
    host: Host, monkeypatch: pytest.MonkeyPatch, bend: float
) -> None:
    seen = rising(monkeypatch, bend)
    result = host.txt2img(lines(weight=0.9), find(), seed=-1)
    study = info(result)["controlnet_study"]
    wanted = ((0.5 - 0.1) / 0.8) ** (1 / bend)
    assert study["reached"]
    assert 0.47 <= study["adherence"] <= 0.53
    assert study["weight"] == pytest.approx(wanted, abs=0.08)
    assert seen[-1] == study["weight"]  # of the job's own picture
    assert seen[:2] == [0.0, 1.0]
    assert len(study["curve"]) == len(seen) - 1 <= 8
    assert study["floor"] == pytest.approx(0.1)
    assert f"Weight: {study['weight']:g}" in result.infotexts[0]
    reaches = "reaches" if study["adherence"] >= 0.5 else "comes within 0.03 of"
    assert f"weight {study['weight']:g} is the least tried that {reaches} adherence 0.5" in result.comments
    assert study["weight"] == round(study["weight"], 2)  # what the page's slider can have
    assert result.comments.count("follows its map") == 1
    assert "did nothing" not in result.comments
    assert np.asarray(result.images[-1]).shape == (320, 480, 3)


def test_the_trials_have_the_jobs_seed_and_leave_no_trace(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rising(monkeypatch)
    found = host.txt2img(lines(), find(target=0.9))
    plain = host.txt2img(lines(weight=info(found)["controlnet_study"]["weight"]))
    assert np.array_equal(np.asarray(found.images[0]), np.asarray(plain.images[0]))


def test_out_of_reach_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rising(monkeypatch)
    result = host.txt2img(lines(), find(target=0.99))
    assert "weight 1 comes nearest: none reaches adherence 0.99" in result.comments


def test_the_range_is_shortened_where_that_is_asked_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rising(monkeypatch)
    result = host.txt2img(lines(), find(shorten=True), steps=8)
    assert info(result)["controlnet_study"]["guidance_end"] == 0.25
    assert "Guidance End: 0.25" in result.infotexts[0]


def test_a_request_of_the_page_counts_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rising(monkeypatch)
    asked = {"study": json.dumps({"what": "weight", "target": 0.5, "steps": 1, "nonce": "a1"})}
    assert "controlnet_study" in info(host.txt2img(lines(), asked))
    assert "controlnet_study" not in info(host.txt2img(lines(), asked))


def test_interrupt_ends_the_search(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = rising(monkeypatch)
    state = host.app.modules("shared").state
    module = sys.modules["sd_controlnet.hosts.webui.studies"]
    run = module.run_trial

    def interrupted(*args: Any) -> Any:
        made = run(*args)
        state.interrupted = True
        module.was_asked = True
        return made

    monkeypatch.setattr(module, "run_trial", interrupted)
    result = host.txt2img(lines(), find())
    assert len(seen) <= 2
    assert not info(result).get("controlnet_study", {}).get("reached")
    assert "ControlNet unit 0: stopped before it was found out" in result.comments


def test_floor_and_ceiling(host: Host) -> None:
    result = host.txt2img(lines(), {"study": {"what": "bounds"}})
    (row,) = info(result)["controlnet"]
    without = host.txt2img()
    wanted = edges(DRAWN)
    assert row["floor"] == pytest.approx(f1_within(edges(without.images[0]), wanted, 2), abs=1e-3)
    assert row["ceiling"] is not None
    if row["ceiling"] > row["floor"]:
        share = (row["adherence"] - row["floor"]) / (row["ceiling"] - row["floor"])
        assert row["followed"] == pytest.approx(min(max(share, 0), 1), abs=1e-3)
    assert "without control" in result.comments


def f1_within(found: Any, wanted: Any, tolerance: float) -> float:
    """Of the lines of two maps, by scipy's distances."""
    ndimage = pytest.importorskip("scipy.ndimage")
    far = [ndimage.distance_transform_edt(~lines) if lines.any() else np.full(lines.shape, np.inf)
           for lines in (found, wanted)]  # fmt: skip
    precision = (far[1][found] <= tolerance).mean() if found.any() else 0.0
    recall = (far[0][wanted] <= tolerance).mean() if wanted.any() else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def edges(picture: Any) -> Any:
    import cv2

    pixels = picture if isinstance(picture, np.ndarray) else np.asarray(picture.convert("RGB"))
    return cv2.Canny(np.ascontiguousarray(pixels), 100, 200) > 0


def test_a_map_has_no_ceiling(host: Host) -> None:
    drawn = np.dstack([edges(DRAWN).astype(np.uint8) * 255] * 3)
    result = host.txt2img(unit(module="none", image=drawn, model="first"), {"study": {"what": "bounds"}})
    row = info(result)["controlnet"][0]
    assert row["ceiling"] is None
    assert "not known" in row["why_no_ceiling"]


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ({"what": "weight", "unit": 1}, "takes no part"),
        ({"what": "taste"}, "what is one of weight, bounds"),
        ({"what": "weight", "target": 2}, "target is a number from 0 to 1"),
        ({"what": "weight", "goal": 1}, "the fields are"),
        ("{", "no JSON"),
        (3, "int"),
    ],
)
def test_wrong_questions_are_refused(host: Host, study: Any, words: str) -> None:
    with pytest.raises(Exception, match=words):
        host.txt2img(lines(), {"study": study})


def test_what_cannot_be_measured_cannot_be_searched(host: Host) -> None:
    with pytest.raises(Exception, match="cannot be measured"):
        host.txt2img(unit(module="none"), find())


def test_similarity_to_the_prompt_by_the_interrogators_clip(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    import torch

    class Clip(torch.nn.Linear):
        def encode_image(self, picture: Any) -> Any:
            return torch.cat([picture.mean(dim=(1, 2, 3))[:, None], torch.ones(1, 1)], 1)

        def encode_text(self, tokens: Any) -> Any:
            return torch.cat([torch.zeros(1, 1), torch.ones(1, 1)], 1)

    asked: list[str] = []
    fake = types.ModuleType("clip")
    fake.tokenize = lambda texts, truncate: asked.append(texts[0]) or torch.zeros(1, 77)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "clip", fake)
    prepare = lambda picture: torch.as_tensor(np.asarray(picture, np.float32) / 255).permute(2, 0, 1)  # noqa: E731
    interrogator = types.SimpleNamespace(clip_model=Clip(1, 1), clip_preprocess=prepare)
    monkeypatch.setattr(host.app.modules("shared"), "interrogator", interrogator, raising=False)
    rising(monkeypatch)
    result = host.txt2img(lines(), find())
    study = info(result)["controlnet_study"]
    assert [weight for weight, _ in study["similarity"]] == [weight for weight, _ in study["curve"]]
    assert all(0.7 < value <= 1 for _, value in study["similarity"])
    assert set(asked) == {"a red heart"}
    assert "no CLIP" not in result.comments
