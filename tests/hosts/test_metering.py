"""Pictures are measured as they are made, and the result says how well they follow their maps."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.measure import lpips_weights, maps

from .conftest import SIZE, Host, unit


@pytest.fixture(autouse=True)
def measured(host: Host) -> Iterator[Any]:
    """The option is on."""
    options = host.app.modules("shared").opts
    before = dict(options.data)
    options.data.update(controlnet_measure=True)
    yield options
    options.data.clear()
    options.data.update(before)


def canny(picture: Any) -> Any:
    return cv2.Canny(np.ascontiguousarray(np.asarray(picture.convert("RGB"))), 100, 200)


def told(result: Any) -> list[dict[str, Any]]:
    return json.loads(result.js())["controlnet"]


DRAWN = maps.smooth(SIZE, SIZE)


def lines(**changes: Any) -> dict[str, Any]:
    return unit(module="canny", image=DRAWN, processor_res=SIZE, **changes)


def test_the_numbers_are_those_of_the_pictures(host: Host) -> None:
    result = host.txt2img(lines(), batch_size=2, n_iter=2)
    (one,) = told(result)
    assert (one["unit"], one["preprocessor"], len(one["pictures"])) == (0, "canny", 4)
    wanted = cv2.Canny(DRAWN, 100, 200) > 0
    first = result.index_of_first_image
    for picture, row in zip(result.images[first : first + 4], one["pictures"], strict=True):
        found = canny(picture) > 0
        assert row["f1"] == pytest.approx(2 * (found & wanted).sum() / (found.sum() + wanted.sum()), abs=1e-4)
        assert "resolution 64" in row["measured"]["detector"]
    assert one["adherence"] == pytest.approx(np.mean([row["adherence"] for row in one["pictures"]]), abs=1e-4)


def test_page_and_infotext_say_it(host: Host) -> None:
    result = host.txt2img(lines())
    assert "follows its map" in result.comments
    assert "f1_tolerant" in result.comments
    assert "Adherence to ControlNet: unit 0 f1_tolerant" in result.infotexts[0]


def test_nothing_is_measured_unless_asked_for(host: Host, measured: Any) -> None:
    measured.data.update(controlnet_measure=False)
    result = host.txt2img(lines())
    assert "adherence" not in told(result)[0]
    assert "Adherence" not in result.infotexts[0] + result.comments


def test_a_region_is_all_that_is_scored(host: Host) -> None:
    region = np.zeros((SIZE, SIZE), np.uint8)
    region[:, : SIZE // 2] = 255
    result = host.txt2img(lines(effective_region_mask=region))
    wanted, found = cv2.Canny(DRAWN, 100, 200) > 0, canny(result.images[0]) > 0
    half = np.s_[:, : SIZE // 2]
    expected = 2 * (found & wanted)[half].sum() / (found[half].sum() + wanted[half].sum())
    assert told(result)[0]["pictures"][0]["f1"] == pytest.approx(expected, abs=1e-4)


def test_the_border_of_fill_is_not_scored(host: Host) -> None:
    wide = maps.smooth(SIZE, 2 * SIZE)
    result = host.txt2img(unit(module="canny", image=wide, processor_res=SIZE, resize_mode="Resize and Fill"))
    assert told(result)[0]["pictures"][0]["adherence"] is not None


def test_error_maps_are_appended_where_asked_for(host: Host, measured: Any) -> None:
    plain = host.txt2img(lines())
    measured.data.update(controlnet_measure_maps=True)
    with_maps = host.txt2img(lines())
    assert len(with_maps.images) == len(plain.images) + 1
    assert np.asarray(with_maps.images[-1]).shape == (SIZE, SIZE, 3)


def test_only_masked_measures_what_was_painted(host: Host) -> None:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[16:48, 16:48] = 255
    from PIL import Image

    for full_res in (False, True):
        result = host.img2img(
            lines(), mask=Image.fromarray(mask), inpaint_full_res=full_res, inpainting_fill=1, mask_blur=0
        )
        row = told(result)[0]["pictures"][0]
        assert row["measured"]["size"] == f"{SIZE}x{SIZE}"
        assert row["adherence"] is not None


def test_a_unit_without_a_preprocessor_says_how_it_was_measured(host: Host) -> None:
    result = host.txt2img(unit(module="none", image=np.dstack([cv2.Canny(DRAWN, 100, 200)] * 3)))
    row = told(result)[0]["pictures"][0]
    assert row["adherence"] is not None or "name a preprocessor" in row["problem"]


def test_hires(host: Host) -> None:
    result = host.txt2img(lines(), enable_hr=True, hr_scale=2, hr_second_pass_steps=1, denoising_strength=0.5,
                          hr_upscaler="Latent")  # fmt: skip
    assert told(result)[0]["pictures"][0]["measured"]["size"] == f"{2 * SIZE}x{2 * SIZE}"


def test_a_picture_that_cannot_be_measured_is_said_and_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["sd_controlnet.hosts.webui.metering"]

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("no numbers today")

    monkeypatch.setattr(module, "measure_picture", broken)
    result = host.txt2img(lines())
    assert len(result.images) >= 1
    assert "no numbers today" in result.comments


@pytest.mark.parametrize(("value", "words"), [(0, "the map is empty"), (None, "")])
def test_a_map_that_shows_nothing_is_said_with_the_job(host: Host, value: int | None, words: str) -> None:
    image = DRAWN if value is None else np.full((SIZE, SIZE, 3), value, np.uint8)
    result = host.txt2img(unit(module="canny", image=image, processor_res=SIZE))
    assert ("the map is empty" in result.comments) is bool(words)


def test_how_strongly_each_unit_acted_is_always_said(host: Host, measured: Any) -> None:
    measured.data.update(controlnet_measure=False)
    result = host.txt2img(lines(), unit(weight=0.5, guidance_end=0.4), steps=4, enable_hr=True, hr_scale=2,
                          hr_second_pass_steps=2, denoising_strength=0.9, hr_upscaler="Latent")  # fmt: skip
    first, second = told(result)
    assert (first["unit"], first["preprocessor"], first["model"].split()[0]) == (0, "canny", "first")
    assert "adherence" not in first
    assert [(one["pass"], len(one["steps"])) for one in first["effect"]["passes"]] == [("base", 4), ("hires", 2)]
    assert all(share > 0 for one in first["effect"]["passes"] for share in one["steps"])
    assert [share > 0 for share in second["effect"]["passes"][0]["steps"]] == [True, True, False, False]
    assert first["effect"]["mean"] > second["effect"]["mean"] > 0


def test_the_line_says_it_beside_the_adherence(host: Host) -> None:
    result = host.txt2img(lines())
    assert "it added" in result.comments
    assert {"adherence", "effect"} <= told(result)[0].keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": 0.01}, "its weight is 0.01"),
        ({"guidance_end": 0.01}, "it acted in 1 of 20 steps, since its range is 0 to 0.01"),
        ({"weight": 1.0}, ""),
    ],
)
def test_next_to_nothing_is_said_with_its_reason(host: Host, changes: dict[str, Any], words: str) -> None:
    result = host.txt2img(unit(**changes), steps=20)
    assert ("next to nothing" in result.comments) is bool(words)
    assert words in result.comments
    assert words in result.infotexts[0]


def test_a_unit_that_drowns_another_is_named(host: Host) -> None:
    result = host.txt2img(unit(weight=1.5), unit(weight=0.11))
    assert "unit 0: it drowns unit 1" in result.comments


def test_lpips_stands_beside_the_adherence_where_its_weights_are(host: Host, measured: Any, tmp_path: Path) -> None:
    """In the answer, the line and the infotext."""
    tile = unit(module="tile_resample", image=DRAWN)
    lpips_weights.write(tmp_path / "lpips")
    measured.data.update(control_net_modules_path=str(tmp_path))
    result = host.txt2img(tile)
    row = told(result)[0]["pictures"][0]
    assert 0 < row["lpips"] < 5
    for said in (result.comments, result.infotexts[0]):
        assert f"ssim {row['ssim']:.3f} lpips {row['lpips']:.3f}" in said


def test_the_error_map_of_a_bar_is_kept(host: Host) -> None:
    result = host.txt2img(lines(), batch_size=2)
    number = int(result.comments.partition("error map ")[2].partition(")")[0])
    maps = sys.modules["sd_controlnet_annotator"].extension.services.measured
    first = result.index_of_first_image
    for place in range(2):
        picture, field = maps.find(number, first + place)
        assert np.array_equal(picture, np.asarray(result.images[first + place].convert("RGB")))
        assert field.shape == (SIZE, SIZE)
    assert maps.find(number + 1, 0) is None


def test_the_best_stand_first_with_what_is_theirs(host: Host, measured: Any) -> None:
    plain = host.txt2img(lines(), batch_size=2, n_iter=2)
    values = [row["adherence"] for row in told(plain)[0]["pictures"]]
    order = sorted(range(4), key=lambda place: -values[place])
    assert order != [0, 1, 2, 3]
    measured.data.update(controlnet_measure_sort=True, controlnet_measure_maps=True)
    found = host.txt2img(lines(), batch_size=2, n_iter=2)
    first, (one,) = found.index_of_first_image, told(found)
    assert [row["adherence"] for row in one["pictures"]] == [values[place] for place in order]
    assert found.all_seeds == [plain.all_seeds[place] for place in order]
    number = int(found.comments.partition("error map ")[2].partition(")")[0])
    maps = sys.modules["sd_controlnet_annotator"].extension.services.measured
    for place, before in enumerate(order):
        picture = np.asarray(found.images[first + place].convert("RGB"))
        assert np.array_equal(picture, np.asarray(plain.images[plain.index_of_first_image + before].convert("RGB")))
        assert f"Seed: {found.all_seeds[place]}," in found.infotexts[first + place]
        assert np.array_equal(maps.find(number, first + place)[0], picture)
    assert len(found.images) == len(plain.images) + 4
