"""The map of where control was followed, and pictures that are not what is expected."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import Runtime
from lib_controlnet.measure.metrics import expected_kind, kind_of, metric_of
from lib_controlnet.measure.shown import GREEN, RED, error_map
from lib_controlnet.measure.suspect import suspicion

from . import maps
from .maps import Pixels


def photograph(size: int = 256) -> Pixels:
    """Colours, shadows and noise, as a camera gives them."""
    rng = np.random.default_rng(2)
    coarse = cv2.resize(rng.integers(20, 230, (6, 6, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    picture = maps.noisy(coarse, 10)
    cv2.circle(picture, (size // 3, size // 2), size // 5, (180, 120, 90), -1)
    cv2.rectangle(picture, (size // 2, size // 4), (size - 20, size - 30), (40, 70, 120), -1)
    return maps.noisy(cv2.GaussianBlur(picture, (0, 0), 1), 6)


def drawing(size: int = 256) -> Pixels:
    return 255 - maps.line_scene(size)


def test_green_where_followed_and_red_where_not() -> None:
    wanted = np.zeros((64, 64, 3), np.uint8)
    wanted[:, 16] = wanted[:, 48] = 255
    found = wanted.copy()
    found[:, 48] = 0
    field = metric_of("lines").followed(found, wanted)
    assert field is not None
    picture = np.full((128, 128, 3), 200, np.uint8)
    shown = error_map(picture, field, opacity=1.0)
    assert shown.shape == picture.shape
    assert tuple(shown[60, 33]) == GREEN
    assert tuple(shown[60, 97]) == RED
    assert tuple(shown[60, 64]) == (200, 200, 200)
    half = error_map(picture, field, opacity=0.5)
    assert half[60, 33] == pytest.approx((np.array(GREEN) + 200) / 2, abs=1)
    assert (error_map(picture, field, opacity=0) == 200).all()


def test_graded_fields_fade() -> None:
    field = np.linspace(-1, 1, 64, dtype=np.float32)[None].repeat(64, 0)
    shown = error_map(np.full((64, 64, 3), 128, np.uint8), field, 1.0)
    assert shown[0, 0] == pytest.approx(RED, abs=1)
    assert shown[0, -1] == pytest.approx(GREEN, abs=1)
    assert shown[0, 32] == pytest.approx((128, 128, 128), abs=5)


@pytest.mark.parametrize("kind", ["lines", "depth", "normals", "segments", "poses"])
def test_a_photograph_is_no_map(kind: str) -> None:
    found = suspicion(photograph(), kind)
    assert found is not None
    assert found.what == "photo"
    assert "expected" in found.text or "take a preprocessor" in found.text


@pytest.mark.parametrize("kind", ["lines", "depth", "normals", "segments", "poses", "pictures"])
def test_an_empty_map_is_empty(kind: str) -> None:
    found = suspicion(np.zeros((64, 48, 3), np.uint8), kind)
    assert found is not None
    assert found.what == "empty"
    assert "so the model is told" in found.text


@pytest.mark.parametrize("grey", [1, 4])
def test_dark_lines_on_white_are_inverted(grey: int) -> None:
    found = suspicion(cv2.GaussianBlur(drawing(), (0, 0), grey / 4), "lines")
    assert found is not None
    assert found.what == "inverted"


OF_PHOTOGRAPHS = ("canny", "pyracanny", "lineart_standard", "scribble_xdog", "threshold", "binary", "color",
                  "tile_resample", "blur_gaussian", "shuffle", "recolor_luminance")  # fmt: skip


@pytest.mark.parametrize("id_", OF_PHOTOGRAPHS)
@pytest.mark.parametrize("size", [128, 256, 512])
def test_what_preprocessors_make_is_not_suspected(id_: str, size: int) -> None:
    entry = discover(None).get(id_)
    params = tuple(slider.default for slider in entry.spec.sliders)
    made = entry.load(Runtime())(photograph(size), resolution=size, params=params)
    assert isinstance(made, np.ndarray)
    found = suspicion(made, kind_of(entry.spec))  # type: ignore[arg-type]
    plain = int(np.ptp(made, axis=(0, 1)).max()) < 8 or (made.max(axis=2) > 32).mean() < 0.0005
    assert (found is not None and found.what) == (plain and "empty")


def test_what_a_drawing_is_made_of_is_not_suspected() -> None:
    entry = discover(None)
    for id_, picture in (("invert", drawing()), ("scribble", drawing()), ("normal_from_depth", maps.depth_scene())):
        made = entry.get(id_).load(Runtime())(picture, resolution=256)
        assert isinstance(made, np.ndarray)
        assert suspicion(made, "normals" if "normal" in id_ else "lines") is None


@pytest.mark.parametrize(
    ("map_", "kind"),
    [
        (maps.line_scene(512), "lines"),
        (maps.smooth() // 2, "pictures"),
        (maps.depth_scene(), "depth"),
        (maps.normal_scene(), "normals"),
        (maps.PALETTE[maps.class_scene()], "segments"),
        (cv2.GaussianBlur(maps.line_scene(256), (0, 0), 2) * np.uint8(3), "lines"),
        (maps.line_scene(64)[:, :, :1], "lines"),
        (maps.line_scene(64)[:, :, 0], "lines"),
        (photograph(), "colours"),
        (photograph(), "unknown"),
        (photograph(), "no such kind"),
    ],
)  # fmt: skip
def test_right_maps_are_not_suspected(map_: Pixels, kind: str) -> None:
    assert suspicion(map_, kind) is None


@pytest.mark.parametrize(
    ("id_", "model", "kind"),
    [
        ("none", "control_v11p_sd15_canny [d14c016b]", "lines"),
        ("none", "control_v11f1p_sd15_depth", "depth"),
        ("none", "t2iadapter_canny_sd15", "lines"),
        ("none", "canny_or_depth", "unknown"),
        ("none", "my own model", "unknown"),
        ("invert", "my own model", "lines"),
        ("canny", "control_v11f1p_sd15_depth", "lines"),
    ],
)
def test_the_kind_that_a_model_expects(id_: str, model: str, kind: str) -> None:
    assert expected_kind(discover(None).get(id_).spec, model) == kind  # type: ignore[arg-type]
