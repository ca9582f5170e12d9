"""Other extensions' scripts in the same job: what they find among our arguments, and what they put there."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from .conftest import Host, picture, pixels, unit


@pytest.fixture
def code(host: Host) -> ModuleType:
    return importlib.import_module("scripts.external_code")


@contextmanager
def beside(host: Host, before_process: Callable[[Any], object]) -> Iterator[None]:
    """Another extension's always-on script, run before ours, for the jobs within."""
    scripts = host.app.modules("scripts")

    class Other(scripts.Script):
        args_from = args_to = 0

        def title(self) -> str:
            return "Other"

        def before_process(self, p: Any, *_args: Any) -> None:
            before_process(p)

    runners = scripts.scripts_txt2img, scripts.scripts_img2img
    other = Other()
    for runner in runners:
        runner.alwayson_scripts.insert(0, other)
        runner.callback_map.clear()  # the host keeps them by the number of scripts
    try:
        yield
    finally:
        for runner in runners:
            runner.alwayson_scripts.remove(other)
            runner.callback_map.clear()


def slice_of(p: Any) -> Any:
    """Our arguments, as AnimateDiff and others take them."""
    script = next(script for script in p.scripts.alwayson_scripts if script.title().lower() == "controlnet")
    return p.script_args[script.args_from : script.args_to]


@pytest.mark.parametrize("units", [(), ({},), (unit(),), ({"enabled": False}, unit(weight=0.5))])
def test_every_argument_answers_as_a_unit(host: Host, units: tuple[Any, ...]) -> None:
    seen: list[Any] = []
    with beside(host, lambda p: seen.extend(slice_of(p))):
        host.txt2img(*units)
    assert [index for index, item in enumerate(seen) if item.enabled] == [
        index for index, item in enumerate(units) if item.get("enabled")
    ]
    for item in seen:
        assert item.input_mode.name == "SIMPLE"
        assert item.batch_images.split("\n") == [""]
        assert not item.animatediff_batch
        assert item.get("batch_images", None) == ""
        assert item.get("nothing", 3) == 3


def test_reading_the_slice_changes_nothing(host: Host) -> None:
    alone, plain = pixels(host.txt2img(unit())), pixels(host.txt2img())
    with beside(host, lambda p: [item.enabled for item in slice_of(p)]):
        assert np.array_equal(pixels(host.txt2img(unit())), alone)
        assert np.array_equal(pixels(host.txt2img()), plain)
    assert not np.array_equal(alone, plain)


def test_a_unit_switched_off_by_another_script_is_off(host: Host) -> None:
    def switch_off(p: Any) -> None:
        for item in slice_of(p):
            item.enabled = False

    plain = pixels(host.txt2img())
    with beside(host, switch_off):
        assert np.array_equal(pixels(host.txt2img(unit())), plain)


def test_a_weight_changed_by_another_script_is_used(host: Host) -> None:
    def change(p: Any) -> None:
        slice_of(p)[0].weight = 0.5

    expected = pixels(host.txt2img(unit(weight=0.5)))
    with beside(host, change):
        assert np.array_equal(pixels(host.txt2img(unit())), expected)


# -- jobs that other extensions make --------------------------------------------------------------------------------


def job(host: Host, **settings: Any) -> Any:
    processing, scripts, shared = (host.app.modules(name) for name in ("processing", "scripts", "shared"))
    fields = {"prompt": "a red heart", "seed": 11, "steps": 2, "width": 64, "height": 64, "cfg_scale": 4.0}
    saved = {"do_not_save_samples": True, "do_not_save_grid": True, "sampler_name": "Euler"}
    p = processing.StableDiffusionProcessingTxt2Img(**{**fields, **saved, **settings})
    p.outpath_samples = p.outpath_grids = shared.opts.outdir_txt2img_samples
    p.scripts = scripts.scripts_txt2img
    return p


def run(host: Host, p: Any) -> Any:
    return pixels(host.app.modules("processing").process_images(p))


FILLINGS: dict[str, Callable[[int], Any]] = {
    "zeros, as Inpaint Anything": lambda count: np.zeros(count).tolist(),
    "None, as Deforum": lambda count: [None] * count,
    "a tuple of None": lambda count: (None,) * count,
    "False": lambda count: [False] * count,
    "fewer than needed": lambda count: [0.0] * (count - 5),
    "more than needed": lambda count: [0.0] * (count + 5),
}


@pytest.mark.parametrize("filling", FILLINGS)
def test_arguments_filled_with_nothing_then_units(host: Host, code: ModuleType, filling: str) -> None:
    runner = host.app.modules("scripts").scripts_txt2img
    script = code.find_cn_script(runner)
    ends = script.args_from, script.args_to
    expected, plain = pixels(host.txt2img(unit())), pixels(host.txt2img())
    p = job(host)
    p.script_args = FILLINGS[filling](script.args_to)
    image = np.asarray(picture())
    mask = np.zeros_like(image)
    units = [code.to_processing_unit({"model": "first", "module": "none", "image": {"image": image, "mask": mask}})]
    code.update_cn_script_in_processing(p, units)
    assert all(hasattr(item, "enabled") for item in slice_of(p))
    assert np.array_equal(run(host, p), expected)
    p = job(host)
    p.script_args = FILLINGS[filling](script.args_to)
    assert np.array_equal(run(host, p), plain)
    assert (script.args_from, script.args_to) == ends


def test_deforums_job(host: Host, code: ModuleType) -> None:
    """A copied runner with our script alone, arguments of None, five units of which one is enabled."""
    expected = pixels(host.txt2img(unit(weight=0.5)))
    p = job(host)
    p.scripts = copy.copy(p.scripts)
    script = code.find_cn_script(p.scripts)
    p.scripts.alwayson_scripts = [script]
    p.script_args_value = [None] * script.args_to
    fields = {"enabled": False, "module": "none", "model": "None", "weight": 1.0, "processor_res": 64}
    units = [code.ControlNetUnit(**fields, threshold_a=64, threshold_b=64, image=None) for _ in range(5)]
    units[0] = code.ControlNetUnit(enabled=True, module="none", model="first", weight=0.5, image=np.asarray(picture()))
    code.update_cn_script_in_processing(p, units, is_img2img=False, is_ui=False)
    assert np.array_equal(run(host, p), expected)


def test_the_forge_way_of_adetailer(host: Host, code: ModuleType) -> None:
    """A copy of our script with a range of its own, whose only argument is the unit."""
    expected = pixels(host.txt2img(unit()))
    p = job(host)
    script = copy.copy(next(script for script in p.scripts.scripts if script.title() == "ControlNet"))
    p.scripts = copy.copy(p.scripts)
    p.scripts.alwayson_scripts, p.scripts.callback_map = [], {}
    p.script_args_value = []
    script.args_from, script.args_to = 0, 1
    p.scripts.alwayson_scripts.append(script)
    image = np.asarray(picture())
    given = code.ControlNetUnit(enabled=True, model="first", module="none", image={"image": image, "mask": None})
    p.script_args_value.extend([given])
    assert np.array_equal(run(host, p), expected)


def test_adetailers_copies_of_the_arguments(host: Host) -> None:
    """Copied one by one, and switched off by the name of their class."""
    plain = pixels(host.txt2img())
    p = job(host)
    p.script_args = host.app.script_args(False, {"ControlNet": [unit()]})
    inner = job(host)
    arguments = [copy.copy(item) for item in p.script_args]
    for item in arguments:
        if "controlnet" in type(item).__name__.lower():
            item.enabled = False
            item.input_mode = getattr(item.input_mode, "SIMPLE", "simple")
    inner.script_args = arguments
    assert np.array_equal(run(host, inner), plain)
    assert not np.array_equal(run(host, p), plain)


def test_a_preprocessor_pack_asks_for_the_device(host: Host) -> None:
    """As sd-webui-controlnet-evaclip: derived from our base, loaded to `self.device`."""
    base = importlib.import_module("internal_controlnet.external_code")

    class Pack(base.Preprocessor):
        def __init__(self) -> None:
            super().__init__(name="pack")
            self.slider_resolution = base.PreprocessorParameter(visible=False)
            self.returns_image = False

        def __call__(self, input_image: Any, resolution: int = 512, **_kwargs: Any) -> Any:
            return torch.zeros(1, device=self.device)

    devices = host.app.modules("devices")
    assert Pack().device == devices.get_device_for("controlnet")
    assert Pack().cached_call(np.zeros((4, 4, 3), np.uint8), 512).value.tolist() == [0.0]
    assert base.Preprocessor.get_preprocessor("canny").label == "canny"
    assert importlib.import_module("scripts.supported_preprocessor").Preprocessor is base.Preprocessor
