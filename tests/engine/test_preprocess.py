"""Preprocessors behind the runner: settings, the cache, and errors, with the real registry."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

import annotator.sd_controlnet.entries.canny as canny
from annotator.sd_controlnet.registry import Entry, Registry, discover
from annotator.sd_controlnet.spec import PreprocessorSpec, Runtime, Slider
from lib_controlnet.core.errors import PreprocessorError, PreprocessorFailure
from lib_controlnet.engine.preprocess import PreprocessRunner
from lib_controlnet.engine.preprocess_settings import Asked, used_settings

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.fixture
def runner() -> PreprocessRunner:
    return PreprocessRunner(discover(), Runtime)


def test_canny_is_opencv_with_the_settings_asked_for(runner):
    result = runner.run("canny", PICTURE, resolution=64, threshold_a=40, threshold_b=90)
    assert np.array_equal(result.map[:, :, 0], cv2.Canny(PICTURE, 40, 90))
    assert (result.resolution, result.params) == (64, (40, 90))


def test_minus_one_asks_for_defaults(runner):
    result = runner.run("canny", PICTURE)
    assert (result.resolution, result.params) == (512, (100, 200))


def test_a_computed_resolution_knows_no_range(runner):
    result = runner.run("canny", PICTURE, resolution=-100, pixel_perfect=32)
    assert (result.resolution, result.notes) == (32, ())
    assert runner.run("invert", PICTURE, pixel_perfect=32).resolution == 512


def test_the_placeholder_of_clients_is_the_default_where_it_cannot_be_a_choice(runner):
    tile = runner.run("tile_resample", PICTURE, threshold_a=64, threshold_b=64)
    assert (tile.params[0], tile.notes) == (pytest.approx(1.0), ())
    assert runner.run("canny", PICTURE, threshold_a=64).params[0] == 64
    invert = runner.run("invert", PICTURE, resolution=512, threshold_a=64, threshold_b=64)
    assert (invert.resolution, invert.notes) == (512, ())


SPECS = [entry.spec for entry in discover().entries]
FOREIGN = (0, -1, -7.5, 0.25, 1, 63, 64, 300, 512, 4096, 1e300, float("inf"), float("nan"))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
@pytest.mark.parametrize("field", ["processor_res", "threshold_a", "threshold_b"])
def test_a_number_that_a_preprocessor_does_not_take_is_replaced_and_said(spec, field):
    """For every preprocessor: inside of its slider the number counts, elsewhere the default and a note of it."""
    for value in FOREIGN:
        check_foreign(spec, field, value)


def check_foreign(spec, field, value):
    place = ("processor_res", "threshold_a", "threshold_b").index(field)
    slider = (spec.resolution, *spec.sliders, None, None)[place]
    resolution, params, notes = used_settings(spec, Asked(**{field: value}))
    used = (resolution, *params, None, None)[place]
    assert len(params) == min(len(spec.sliders), 2)
    if slider is None:
        assert used in (None, 512)
    elif slider.minimum <= value <= slider.maximum:
        assert used == (int(value) if place == 0 else value)
        assert not notes
        return
    else:
        assert used == slider.default
    silent = value == -1 or value == (512 if place == 0 else 64)
    assert len(notes) == (0 if silent else 1)
    assert all(field in note and f"{value:g}" in note and spec.id in note for note in notes)


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
    with pytest.raises(PreprocessorError, match=r"normal_dsine.*not available"):
        runner.run("normal_dsine", PICTURE)
    broken = Registry()
    broken.register(Entry(canny.SPEC, lambda _: lambda *_, **__: 1 / 0))
    with pytest.raises(PreprocessorFailure, match=r"canny.*failed.*division by zero"):
        PreprocessRunner(broken, Runtime).run("canny", PICTURE)


class Network:
    """A network that is loaded through the runtime, as preprocessors with weights do."""

    nbytes = 10

    def __init__(self):
        self.made = 0

    def entry(self, run):
        def load(runtime):
            def detect(image, **_):
                return run(runtime, runtime.network("net", self.make), image)

            return detect

        return Entry(PreprocessorSpec(id="net"), load)

    def make(self):
        self.made += 1
        return self


def with_network(run):
    network, registry = Network(), Registry()
    registry.register(network.entry(run))
    return PreprocessRunner(registry, Runtime), network


def test_a_network_is_loaded_once_and_again_after_unloading():
    runner, network = with_network(lambda _runtime, _network, image: image.copy())
    for seed in range(3):
        runner.run("net", PICTURE, seed=seed)
    assert network.made == 1
    runner.unload()
    runner.run("net", PICTURE, seed=1)
    assert network.made == 1, "the result was kept"
    runner.run("net", PICTURE, seed=9)
    assert network.made == 2


def test_a_preprocessor_is_stopped_at_its_next_stage_and_the_next_run_is_not():
    stages = []

    def run(runtime, _network, image):
        for part in (0.25, 0.5, 0.75):
            runtime.stage(part)
            stages.append(part)
        return image.copy()

    runner, _ = with_network(run)
    told = []

    def watch(part):
        told.append(part)
        if part == 0.5 and len(told) == 2:
            runner.cancel()

    with pytest.raises(PreprocessorError, match="stopped"):
        runner.run("net", PICTURE, progress=watch)
    assert (stages, told) == ([0.25, 0.5], [0.25, 0.5])
    assert np.array_equal(runner.run("net", PICTURE, progress=watch).map, PICTURE)
    assert told[2:] == [0.25, 0.5, 0.75]
    runner.run("net", PICTURE, seed=5)
    assert len(told) == 5, "a run is not told to another's watcher"


def test_previews_and_jobs_take_turns():
    running, most = [], [0]

    def run(_runtime, _network, image):
        running.append(1)
        most[0] = max(most[0], len(running))
        time.sleep(0.02)
        running.pop()
        return image.copy()

    runner, _ = with_network(run)
    threads = [threading.Thread(target=runner.run, args=("net", PICTURE), kwargs={"seed": i}) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_another_folder_or_device_in_the_settings_is_obeyed_at_once(tmp_path):
    network, registry, folders = Network(), Registry(), [()]
    seen = []

    def run(runtime, _network, image):
        seen.append(runtime.weight_folders)
        return image.copy()

    registry.register(network.entry(run))
    runner = PreprocessRunner(registry, lambda: Runtime(weight_folders=folders[0], download_folder=lambda: None))
    for seed in (0, 1):
        runner.run("net", PICTURE, seed=seed)
    assert network.made == 1
    folders[0] = (tmp_path,)
    runner.run("net", PICTURE, seed=2)
    assert seen == [(), (), (tmp_path,)]
    assert network.made == 2
