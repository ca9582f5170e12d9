"""Preprocessors behind the runner: settings, the cache, and errors, with the real registry."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import annotator.canny as canny
from annotator.registry import Entry, Registry, discover
from annotator.spec import PreprocessorSpec, Runtime, Slider
from lib_controlnet.core.errors import PreprocessorError, UnitError
from lib_controlnet.engine.preprocess import PreprocessRunner

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.fixture
def runner() -> PreprocessRunner:
    return PreprocessRunner(discover("annotator"), Runtime)


def test_canny_is_opencv_with_the_settings_asked_for(runner):
    result = runner.run("canny", PICTURE, resolution=64, threshold_a=40, threshold_b=90)
    assert np.array_equal(result.map[:, :, 0], cv2.Canny(PICTURE, 40, 90))
    assert (result.resolution, result.params) == (64, (40, 90))


def test_minus_one_asks_for_defaults(runner):
    result = runner.run("canny", PICTURE)
    assert (result.resolution, result.params) == (512, (100, 200))


def test_a_computed_resolution_knows_no_range(runner):
    assert runner.run("canny", PICTURE, resolution=-1, pixel_perfect=32).resolution == 32
    with pytest.raises(UnitError, match="Resolution"):
        runner.run("canny", PICTURE, resolution=32)


def test_the_placeholder_of_clients_is_the_default_where_it_cannot_be_a_choice(runner):
    assert runner.run("tile_resample", PICTURE, threshold_a=64).params[0] == pytest.approx(1.0)
    assert runner.run("canny", PICTURE, threshold_a=64).params[0] == 64
    with pytest.raises(UnitError, match="out of range"):
        runner.run("tile_resample", PICTURE, threshold_a=63)


def counting(cacheable: bool, limit: int = 1 << 20):
    calls = []
    registry = Registry()

    def load(_runtime):
        def detect(image, **_):
            calls.append(1)
            return image.copy()

        return detect

    spec = PreprocessorSpec(id="count", sliders=(Slider("A", 0, 9, 1, 5),), cacheable=cacheable)
    registry.register(Entry(spec, load))
    return PreprocessRunner(registry, Runtime, limit), calls


def test_results_are_kept_by_picture_mask_and_settings():
    runner, calls = counting(cacheable=True)
    runner.run("count", PICTURE)
    runner.run("count", PICTURE.copy())
    assert len(calls) == 1
    runner.run("count", PICTURE, threshold_a=3)
    runner.run("count", PICTURE, seed=1)
    runner.run("count", PICTURE, np.zeros((64, 64), np.uint8))
    runner.run("count", PICTURE[:, ::-1])
    assert len(calls) == 5


def test_what_depends_on_chance_is_never_kept():
    runner, calls = counting(cacheable=False)
    runner.run("count", PICTURE)
    runner.run("count", PICTURE)
    assert len(calls) == 2


def test_the_cache_is_bounded_in_bytes():
    runner, calls = counting(cacheable=True, limit=2 * PICTURE.nbytes)
    for seed in (0, 1, 2, 0):
        runner.run("count", PICTURE, seed=seed)
    assert len(calls) == 4, "the oldest went when the third came"
    runner.run("count", PICTURE, seed=2)
    assert len(calls) == 4


def test_kept_results_cannot_be_changed():
    runner, _ = counting(cacheable=True)
    with pytest.raises(ValueError, match="read-only"):
        runner.run("count", PICTURE).map[0] = 0


def test_errors_are_ours_and_name_the_preprocessor(runner):
    with pytest.raises(PreprocessorError, match=r"module.*cany.*canny"):
        runner.run("cany", PICTURE)
    with pytest.raises(PreprocessorError, match=r"openpose.*not available"):
        runner.run("openpose_full", PICTURE)
    broken = Registry()
    broken.register(Entry(canny.SPEC, lambda _: lambda *_, **__: 1 / 0))
    with pytest.raises(PreprocessorError, match=r"canny.*failed.*division by zero"):
        PreprocessRunner(broken, Runtime).run("canny", PICTURE)
