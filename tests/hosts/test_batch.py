"""Batches of pictures, merged pictures, loopback, and the prompt modes, in the embedded host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_controlnet.core.panel_options import DEFAULT_PROMPT
from tests.hosts.conftest import Host, as_base64, picture, pixels, unit


def batch(*seeds: int, **fields: Any) -> dict[str, Any]:
    """A unit with one generation for each picture."""
    images = [as_base64(picture(seed)) for seed in seeds]
    return unit(image=None, input_mode="batch", images=images, **fields)


def from_page(host: Host, monkeypatch: pytest.MonkeyPatch, *units: Any, **settings: Any) -> Any:
    """The same job as the page's own: folders may be chosen."""
    processing = host.app.modules("processing")
    original = processing.StableDiffusionProcessingTxt2Img

    class Page(original):
        @property
        def is_api(self) -> bool:
            return False

        @is_api.setter
        def is_api(self, _value: bool) -> None:
            pass

    monkeypatch.setattr(processing, "StableDiffusionProcessingTxt2Img", Page)
    return host.txt2img(*units, **settings)


def test_each_picture_of_a_batch_is_a_generation_with_the_same_seed(host: Host) -> None:
    result = host.txt2img(batch(1, 2))
    assert len(result.images) == 2
    for index, seed in enumerate((1, 2)):
        alone = host.txt2img(unit(image=as_base64(picture(seed))))
        assert np.array_equal(pixels(result, index), pixels(alone))
    assert result.all_seeds == [11, 11]


def test_batch_count_and_size_are_those_of_every_picture(host: Host) -> None:
    result = host.txt2img(batch(1, 2, 3), n_iter=2, batch_size=2)
    assert len([text for text in result.infotexts if "ControlNet 0" in text]) >= 12
    assert result.all_seeds == [11, 12, 13, 14] * 3


def test_shortest_batch_decides_and_other_units_keep_their_picture(host: Host) -> None:
    result = host.txt2img(batch(1, 2, 3), batch(4, 5), unit(model="second", weight=0.5))
    assert len(result.images) == 2
    one = host.txt2img(
        unit(image=as_base64(picture(2))), unit(image=as_base64(picture(5))), unit(model="second", weight=0.5)
    )
    assert np.array_equal(pixels(result, 1), pixels(one))


def test_loopback_goes_on_from_the_first_result(host: Host) -> None:
    result = host.txt2img(batch(1, 2, loopback=True))
    again = host.txt2img(unit(image=as_base64(Image.fromarray(pixels(result, 0)))))
    assert np.array_equal(pixels(result, 1), pixels(again))


def test_folders_are_read_in_order_and_results_keep_their_names(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for seed, name in ((1, "b"), (2, "a")):
        picture(seed).save(source / f"{name}.png")
    (source / "notes.txt").write_text("no picture")
    folder = unit(image=None, input_mode="batch", batch_images=str(source), output_dir=str(target))
    result = from_page(host, monkeypatch, folder)
    assert sorted(path.name for path in target.iterdir()) == ["a.png", "b.png"]
    assert len(result.images) == 1  # the page shows the last
    assert "2 pictures are in" in result.comments
    saved = np.asarray(Image.open(target / "b.png").convert("RGB"))
    assert np.array_equal(saved, pixels(result))
    monkeypatch.undo()
    assert np.array_equal(saved, pixels(host.txt2img(unit(image=as_base64(picture(1))))))


def test_folders_are_not_opened_for_clients(host: Host, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="its own page only"):
        host.txt2img(unit(image=None, input_mode="batch", batch_images=str(tmp_path)))


@pytest.mark.parametrize(("made", "words"), [(False, "cannot be read"), (True, "no pictures")])
def test_wrong_folders_stop_the_job(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool, words: str
) -> None:
    folder = tmp_path / "folder"
    if made:
        folder.mkdir()
    with pytest.raises(Exception, match=words):
        from_page(host, monkeypatch, unit(image=None, input_mode="batch", batch_images=str(folder)))


def test_merged_pictures_share_the_weight(host: Host) -> None:
    images = [as_base64(picture(seed)) for seed in (1, 2)]
    merged = host.txt2img(unit(image=None, input_mode="merge", images=images, weight=0.8))
    apart = host.txt2img(*(unit(image=image, weight=0.4) for image in images))
    assert np.array_equal(pixels(merged), pixels(apart))
    assert "Weight: 0.8" in merged.infotexts[0]


def test_each_unit_for_each_picture(host: Host) -> None:
    one, two = unit(image=as_base64(picture(1))), unit(image=as_base64(picture(2)))
    shared = host.txt2img(one, two, {"batch_option": 1}, batch_size=2)
    alone = [host.txt2img(each, batch_size=2) for each in (one, two)]
    for index in range(2):
        distance = np.abs(pixels(shared, index).astype(int) - pixels(alone[index], index)).max()
        assert distance <= 1
    assert "ControlNet Batch Option" in shared.infotexts[0]


# -- prompts -------------------------------------------------------------------------------------------------------


class Interrogator:
    """Says how bright a picture is."""

    def interrogate(self, image: Image.Image) -> str:
        return f"a picture of brightness {np.asarray(image).mean():.0f}"


def test_empty_prompt_becomes_the_papers(host: Host) -> None:
    result = host.txt2img(unit(), {"prompt_mode": 1}, prompt="")
    assert result.infotexts[0].startswith(DEFAULT_PROMPT)
    assert "ControlNet Prompt Mode: Default prompt if empty" in result.infotexts[0]


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_typed_prompts_stay(host: Host, mode: int) -> None:
    assert host.txt2img(unit(), {"prompt_mode": mode}).infotexts[0].startswith("a red heart")


def test_caption_of_the_source(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.app.modules("shared"), "interrogator", Interrogator(), raising=False)
    source = Image.new("RGB", (64, 64), (40, 40, 40))
    result = host.txt2img(unit(image=as_base64(source)), {"prompt_mode": 2}, prompt="")
    assert result.infotexts[0].startswith("a picture of brightness 40")


def test_caption_of_a_first_result(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.app.modules("shared"), "interrogator", Interrogator(), raising=False)
    first = host.txt2img(unit(), prompt=DEFAULT_PROMPT)
    result = host.txt2img(unit(), {"prompt_mode": 3}, prompt="")
    assert result.infotexts[0].startswith(Interrogator().interrogate(first.images[0].convert("RGB")))


def test_edited_caption_is_taken(host: Host) -> None:
    result = host.txt2img(unit(), {"prompt_mode": 2, "caption": "a blue star"}, prompt="")
    assert result.infotexts[0].startswith("a blue star")


def test_without_an_interrogator_the_job_stops_and_says_so(host: Host) -> None:
    with pytest.raises(Exception, match="no interrogator"):
        host.txt2img(unit(), {"prompt_mode": 2}, prompt="")
