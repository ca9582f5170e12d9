"""Units whose pictures become embeddings: which preprocessor, how many pictures, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lib_controlnet.core.errors import PreprocessorError
from lib_controlnet.core.image_prompt import Combine
from lib_controlnet.core.infotext import format_unit, parse_text, read_units
from lib_controlnet.core.modes import InputMode
from lib_controlnet.engine.embedded import given
from lib_controlnet.engine.preprocess_settings import Asked, used_settings
from tests.device import passes
from tests.device.passes import CONFIGS, Made, Studio, data_sheets, picture, unit
from tests.families.ip_files import FACE

AUTO = {"preprocessor": "ip-adapter-auto"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("models"), CONFIGS["SD1"], "ip_adapter")


@pytest.fixture(autouse=True)
def _all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [SimpleNamespace(spec=spec) for spec in data_sheets().values()]
    monkeypatch.setattr(passes.Annotators, "entries", entries)
    monkeypatch.setattr(passes.Annotators, "disabled", {}, raising=False)


def same(one: Made, other: Made) -> bool:
    return all(torch.equal(*pair) for pair in zip(one.outputs, other.outputs, strict=True))


def test_auto_is_what_the_model_reads(studio: Studio) -> None:
    assert same(studio.made([unit(**AUTO)]), studio.made([unit(preprocessor="ip-adapter_face_id")]))


def test_auto_without_a_preprocessor_says_what_is_missing(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = data_sheets()["ip-adapter_face_id"]
    monkeypatch.setattr(passes.Annotators, "entries", [])
    disabled = {sheet.id: SimpleNamespace(id=sheet.id, reason="it needs insightface", spec=sheet)}
    monkeypatch.setattr(passes.Annotators, "disabled", disabled)
    with pytest.raises(PreprocessorError, match="it needs insightface") as caught:
        studio.made([unit(**AUTO)])
    assert (caught.value.unit, caught.value.field) == (0, "module")


def test_auto_for_a_model_of_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreprocessorError, match="reads maps"):
        Studio(tmp_path, CONFIGS["SD1"]).made([unit(**AUTO)])


@pytest.mark.parametrize("preprocessor", ["ip-adapter_clip_sd15", "ip-adapter_face_id_plus"])
def test_another_embedding_is_refused(studio: Studio, preprocessor: str) -> None:
    with pytest.raises(PreprocessorError, match="buffalo_l"):
        studio.made([unit(preprocessor=preprocessor)])


def test_pictures_of_one_unit_act_together(studio: Studio) -> None:
    """In one attention, not as units of a share of the weight each."""
    pictures: dict[str, Any] = {"image": None, "mask": None, "input_mode": InputMode.merge}
    merged = studio.made([unit(**AUTO, **pictures, images=(picture(1), picture(2)))])
    twice = studio.made([unit(**AUTO, **pictures, images=(picture(1), picture(1)))])
    one = studio.made([unit(**AUTO, image=picture(1), mask=None)])
    averaged = [unit(**AUTO, **pictures, images=(picture(1), picture(1)), ip_combine=Combine.average)]
    assert not same(merged, one)
    for made in (twice, studio.made(averaged)):
        assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(made.outputs, one.outputs, strict=True))


def test_embeddings_stand_for_the_picture(studio: Studio) -> None:
    seen = {"face_embeds": torch.randn(1, FACE, generator=torch.Generator().manual_seed(1))}
    given = studio.made([unit(**AUTO, image=None, mask=None, embeddings=(seen,))])
    assert not same(given, studio.made([]))
    louder = studio.made([unit(**AUTO, image=None, mask=None, embeddings=({"face_embeds": 2 * seen["face_embeds"]},))])
    assert not same(given, louder)


@pytest.mark.parametrize("name", ["ip-adapter-auto", "ip-adapter_face_id", "ip-adapter_clip_sd15"])
def test_embeddings_need_no_preprocessor_that_can_run(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They were made elsewhere; here there is neither InsightFace nor an encoder."""
    sheets = data_sheets()
    asked = unit(preprocessor=name, image=None, mask=None, embeddings=({"face_embeds": torch.ones(1, FACE)},))
    wanted = studio.made([asked])
    off = [sheet for sheet in sheets.values() if sheet.embedding]
    disabled = {sheet.id: SimpleNamespace(id=sheet.id, reason="it needs insightface", spec=sheet) for sheet in off}
    monkeypatch.setattr(passes.Annotators, "entries", [])
    monkeypatch.setattr(passes.Annotators, "disabled", disabled)
    monkeypatch.setattr(passes.Annotators, "get", lambda _self, name: _only(sheets, disabled, name))
    made = studio.made([asked])
    assert not same(made, studio.made([]))
    assert same(made, wanted)
    with pytest.raises(PreprocessorError, match=r"insightface|finds no preprocessor"):
        studio.made([unit(preprocessor=name)])


def _only(sheets: Any, disabled: Any, name: str) -> Any:
    key = name.strip().lower()
    if key in disabled:
        raise KeyError(f"{key}: {disabled[key].reason}")
    return SimpleNamespace(spec=sheets[key], load=None)


@pytest.mark.parametrize("name", [name for name, sheet in data_sheets().items() if sheet.embedding or sheet.by_model])
def test_what_the_infotext_says_of_embeddings_can_be_read_again(name: str) -> None:
    """By sd-webui-controlnet too, where a resolution is 64 to 2048."""
    asked = unit(preprocessor=name, embeddings=({"face_embeds": torch.ones(1, FACE)},))
    result = given(asked, data_sheets()[name])
    text = format_unit(asked, resolution=result.resolution, params=result.params)
    fields = parse_text(text)
    assert 64 <= int(fields["processor_res"]) <= 2048
    units, problems = read_units({"ControlNet 0": text})
    assert not problems
    assert used_settings(
        data_sheets()[name], Asked(units[0].resolution, units[0].threshold_a, units[0].threshold_b)
    ) == (
        result.resolution,
        result.params,
        (),
    )


def test_uncond_rows_hear_a_picture_of_their_own(studio: Studio) -> None:
    made = studio.made([unit(**AUTO, uncond_image=picture(4))])
    plain = studio.made([unit(**AUTO)])
    assert torch.equal(made.outputs[0][:1], plain.outputs[0][:1]), "the cond row is as it was"
    assert not torch.equal(made.outputs[0][1:], plain.outputs[0][1:])


def test_a_model_of_maps_takes_no_embeddings(tmp_path: Path) -> None:
    asked = unit(preprocessor="none", embeddings=({"face_embeds": torch.ones(1, FACE)},))
    with pytest.raises(PreprocessorError, match="reads no embeddings"):
        Studio(tmp_path, CONFIGS["SD1"]).made([asked])
