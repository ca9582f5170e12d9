"""What jobs owe each other: one within another, one after another, one that broke off, one whose host changes."""

from __future__ import annotations

import contextlib
import copy
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.tiny import hook_counts

from .conftest import Host, as_base64, picture, pixels, unit
from .test_company import HIRES, SMALL, beside, replaced, same


def job(host: Host, **settings: Any) -> Any:
    """A processing object without scripts."""
    processing = host.app.modules("processing")
    defaults = {
        "prompt": "inner",
        "seed": 5,
        "steps": 2,
        "cfg_scale": 4.0,
        "sampler_name": "Euler",
        "do_not_save_samples": True,
        "do_not_save_grid": True,
    }
    return processing.StableDiffusionProcessingTxt2Img(**{**defaults, **SMALL, **settings})


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("step", [2, 6], ids=["base", "hires"])
@pytest.mark.parametrize(
    "fields", [{}, {"module": "reference_only", "model": "None"}, {"hr_option": "High res only"}], ids=str
)
def test_a_copy_without_scripts_sampled_within_a_step(host: Host, fields: Any, step: int, size: int):
    """It has our session with it and samples with it, in its own size; the job goes on as it was, maps too."""
    processing, callbacks = host.app.modules("processing"), host.app.modules("script_callbacks")
    settings = {**SMALL, "steps": 4, **HIRES}
    alone = host.txt2img(unit(**fields), **settings)
    steps: list[int] = []

    def nest(params: Any) -> None:
        steps.append(1)
        if len(steps) == step:
            inner = copy.copy(params.denoiser.p)
            inner.scripts = inner.sampler = None
            inner.enable_hr = inner.is_hr_pass = False
            inner.steps, inner.width, inner.height, inner.extra_generation_params = 2, size, size, {}
            processing.process_images(inner)

    callbacks.on_cfg_denoiser(nest)
    try:
        found = host.txt2img(unit(**fields), **settings)
    finally:
        callbacks.remove_callbacks_for_function(nest)
    assert len(steps) == 10, "the inner job ran"
    assert same(found, alone)


@pytest.mark.parametrize("settings", [{}, {"n_iter": 2}, HIRES, {"batch_size": 2}], ids=str)
def test_nothing_of_a_job_lives_on(host: Host, settings: Any):
    kept: list[Any] = []
    with beside(host, "process", lambda p, *_: kept.append(weakref.ref(p))):
        host.txt2img(unit(), **SMALL, **settings)
    gc.collect()
    assert [one() for one in kept] == [None]


def test_a_job_that_broke_off_is_nothing_to_one_without_scripts(host: Host):
    run = host.app.modules("processing").process_images
    hooks, plain = hook_counts(host.unet()), pixels(run(job(host)))
    with pytest.raises(ValueError, match="no such upscaler"):
        host.txt2img(unit(model="nothing"), **SMALL, enable_hr=True, hr_upscaler="no such upscaler")
    assert np.array_equal(pixels(run(job(host))), plain)
    assert hook_counts(host.unet()) == hooks


@pytest.mark.parametrize("place", ["unet", "denoiser"])
def test_reload_ui_while_a_job_samples_stops_it(host: Host, place: str):
    """Nobody tells us of its next steps."""
    hooks, plain = hook_counts(host.unet()), pixels(host.txt2img(**SMALL))
    callbacks, calls = host.app.modules("script_callbacks"), []

    def press(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            host.app.reload()

    with contextlib.ExitStack() as stack:
        if place == "unet":
            stack.callback(host.unet().register_forward_pre_hook(press).remove)
        else:
            callbacks.on_cfg_denoiser(press)
            stack.callback(callbacks.remove_callbacks_for_function, press)
        with pytest.raises(Exception, match="Reload UI"):
            host.txt2img(unit(), width=32, height=32, steps=6)
    assert hook_counts(host.unet()) == hooks
    assert np.array_equal(pixels(host.txt2img(**SMALL)), plain)


def test_hires_fix_switched_off_after_our_turn_leaves_its_unit_the_only_pass(host: Host):
    with beside(host, "process", lambda p, *_: setattr(p, "enable_hr", False)):
        found = host.txt2img(unit(hr_option="High res only"), **SMALL, **HIRES)
    assert same(found, host.txt2img(unit(), **SMALL))


def test_a_unit_of_the_first_pass_in_a_job_without_one_is_said(host: Host):
    """The host's button that enlarges a picture of the gallery."""
    given = {**SMALL, **HIRES, "firstpass_image": picture(3, 32)}
    plain, found = host.txt2img(**given), host.txt2img(unit(hr_option="Low res only"), **given)
    assert np.array_equal(pixels(found), pixels(plain))
    assert "acts in the first pass alone" in found.comments
    assert "acts in the first pass alone" in found.infotexts[0]
    assert "did nothing" not in host.txt2img(unit(hr_option="Low res only"), **SMALL, **HIRES).comments


def test_a_replacement_unet_of_the_job_before_is_nothing_to_this_one(host: Host):
    """The host takes it away as the settings say, after scripts have begun."""
    sd_unet: Any = host.app.modules("sd_unet")
    alone = host.txt2img(unit(), **SMALL)
    sd_unet.current_unet, sd_unet.current_unet_option = sd_unet.SdUnet(), object()
    assert same(host.txt2img(unit(), **SMALL), alone)


def test_jobs_with_the_same_parameters_tell_of_their_own_units(host: Host):
    """The cells of an X/Y/Z plot are copies that share a dict; loops use one processing object many times."""
    run = host.app.modules("processing").process_images
    common = job(host, steps=1)
    common.scripts, common.is_api = host.app.modules("scripts").scripts_txt2img, True

    def text(p: Any, *units: Any) -> str:
        p.script_args = host.app.script_args(False, {"ControlNet": units} if units else {})
        return run(p).infotexts[0]

    for _ in range(2):
        for p in (copy.copy(common), copy.copy(common), common):
            both = text(p, unit(), unit(weight=0.0))
            assert both.index("ControlNet 0: ") < both.index("ControlNet 1: ") < both.index("its weight is 0")
            one = text(copy.copy(common), unit(weight=0.5))
            assert "ControlNet 0: " in one
            assert "ControlNet 1: " not in one
            assert "ControlNet" not in text(p)


def stop_after_this(host: Host) -> Any:
    """The host's Interrupt while its option "finish the current image" is on: the sampling runs to its end."""
    state = host.app.modules("shared").state
    return beside(host, "process_before_every_sampling", lambda *_, **__: setattr(state, "stopping_generation", True))


def test_a_job_that_stops_after_this_picture_is_judged_like_any_other(host: Host):
    model = host.app.modules("shared").sd_model
    with stop_after_this(host):
        assert "its weight is 0" in host.txt2img(unit(weight=0.0), **SMALL, n_iter=2).comments
        with (
            replaced(model, "apply_model", lambda x, *_, **__: torch.zeros_like(x)),
            pytest.raises(Exception, match="never called"),
        ):
            host.txt2img(unit(), **SMALL)
    host.app.modules("shared").state.stopping_generation = False


def test_a_source_that_another_script_replaces_is_the_one_that_controls(host: Host):
    """Its `process` comes after ours."""
    scripts, other = host.app.modules("scripts").scripts_img2img, picture(22, 32)
    own = scripts.process
    wanted = host.img2img(unit(image=None), init_images=[other], **SMALL)

    def both(p: Any) -> None:
        own(p)
        p.init_images = [other]

    with replaced(scripts, "process", both):
        assert same(host.img2img(unit(image=None), init_images=[picture(21, 32)], **SMALL), wanted)


@pytest.mark.parametrize(("count", "words"), [(2, "after 2 of its 3 pictures"), (5, "picture 4 of 3")])
def test_a_batch_whose_count_another_script_changes(host: Host, count: int, words: str):
    images = [as_base64(picture(seed, 32)) for seed in (1, 2, 3)]
    batch = {"enabled": True, "model": "first", "module": "none", "input_mode": "batch", "images": images}
    with beside(host, "process", lambda p, *_: setattr(p, "n_iter", count)):
        assert words in host.txt2img(batch, **SMALL).comments
    assert "early" not in host.txt2img(batch, **SMALL).comments
    with stop_after_this(host):
        assert "early" not in host.txt2img(batch, **SMALL).comments
    host.app.modules("shared").state.stopping_generation = False
