"""Which script methods are called, in which order, with exceptions, interrupts and skips on the way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from tests.standalone.conftest import Traced, picture, pixels

STEP = ["cfg_denoiser", "cfg_denoised", "cfg_after_cfg"]
IMAGE = ["postprocess_image", "postprocess_maskoverlay", "postprocess_image_after_composite"]
SAMPLING = "process_before_every_sampling"
BATCH_START = ["before_process_batch", "after_extra_networks_activate", "process_batch", SAMPLING]
BATCH_END = ["post_sample", "postprocess_batch", "postprocess_batch_list"]


def test_txt2img_runs_the_hosts_order_for_every_batch(host: Traced) -> None:
    host.txt2img(batch_size=2, n_iter=2)

    batch = [*BATCH_START, *STEP, *STEP, *BATCH_END, *IMAGE, *IMAGE]
    assert host.names() == ["setup", "before_process", "process", *batch, *batch, "postprocess"]


def test_gradients_are_off_from_the_batches_on(host: Traced) -> None:
    host.txt2img()

    assert host.details("process")[0]["grad"] is True
    assert host.details("process_before_every_sampling")[0]["grad"] is False


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_hires_samples_twice_but_processes_once(host: Traced, upscaler: str) -> None:
    done = host.txt2img(enable_hr=True, hr_scale=1.5, hr_upscaler=upscaler, denoising_strength=0.9)

    second = ["after_extra_networks_activate", "before_hr", SAMPLING]
    names = host.names(*STEP)
    assert names == ["setup", "before_process", "process", *BATCH_START, *second, *BATCH_END, *IMAGE, "postprocess"]
    sizes = [x["kwargs"]["x"].shape[-1] for x in host.details("process_before_every_sampling")]
    assert sizes == [8, 12]
    assert done.images[0].size == (96, 96)


def test_hires_size_is_cut_to_what_was_asked(host: Traced) -> None:
    done = host.txt2img(enable_hr=True, hr_resize_x=96, hr_resize_y=128, denoising_strength=0.9)

    p = host.details("before_hr")[0]["p"]
    assert (p.hr_upscale_to_x, p.hr_upscale_to_y, p.truncate_x, p.truncate_y) == (128, 128, 4, 0)
    assert done.images[0].size == (96, 128)


def test_a_given_first_pass_is_not_sampled_again(host: Traced) -> None:
    host.txt2img(enable_hr=True, hr_scale=1.5, firstpass_image=picture(), denoising_strength=0.9)

    assert host.names(*STEP).count("process_before_every_sampling") == 1
    assert host.names().index("before_hr") < host.names().index("process_before_every_sampling")


def test_inpainting_blends_after_each_denoiser_call_and_once_at_the_end(host: Traced) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    host.img2img(mask=mask, steps=4, inpaint_full_res=False, inpainting_fill=1)

    calls = host.names().count("cfg_denoiser")
    blends = [x["args"][0] for x in host.details("on_mask_blend")]
    assert calls == 3  # int(0.6 * 4) + 1
    assert [x.is_final_blend for x in blends] == [False] * calls + [True]


def test_process_fails_silently_but_the_unet_fails_the_job(host: Traced) -> None:
    host.script["raise_in"].add("process")
    assert host.txt2img().images

    unet = host.app.modules("shared").sd_model.model.diffusion_model
    handle = unet.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("in the U-Net")))
    host.forget()
    with pytest.raises(RuntimeError, match="in the U-Net"):
        host.txt2img()
    handle.remove()
    assert "postprocess" not in host.names()
    assert "post_sample" not in host.names()

    host.forget()
    assert host.txt2img().images


def test_reported_exceptions_can_be_looked_up(host: Traced) -> None:
    host.script["raise_in"].add("process")
    host.txt2img()

    records = host.app.modules("errors").exception_records
    assert [x["exception"] for x in records] == ["RuntimeError: raised in process"]


def _at(host: Traced, event: str, count: int, act: Any) -> None:
    """Do `act` when `event` happens for the `count`-th time."""
    seen = []

    def count_up(_details: Any) -> None:
        seen.append(1)
        if len(seen) == count:
            act()

    host.script["at_event"][event] = count_up


def test_an_interrupt_ends_the_job_through_postprocess(host: Traced) -> None:
    _at(host, "cfg_denoiser", 2, host.app.modules("shared").state.interrupt)
    done = host.txt2img(steps=5, n_iter=2)

    assert host.names().count("cfg_denoiser") == 2
    assert host.names(*STEP)[-7:] == [*BATCH_END, *IMAGE, "postprocess"]
    assert len(done.images) == 1


def test_a_skip_goes_on_with_the_next_batch(host: Traced) -> None:
    _at(host, "cfg_denoiser", 2, host.app.modules("shared").state.skip)
    done = host.txt2img(steps=5, n_iter=2)

    assert host.names().count("cfg_denoiser") == 2 + 5
    assert len(done.images) == 2


def test_an_interrupt_in_the_first_pass_leaves_the_second_out(host: Traced) -> None:
    _at(host, "cfg_denoiser", 1, host.app.modules("shared").state.interrupt)
    host.txt2img(steps=3, enable_hr=True, hr_scale=1.5)

    assert "before_hr" not in host.names()
    assert "postprocess" in host.names()


def test_interrupted_exception_is_no_exception(host: Traced) -> None:
    raised = host.app.modules("sd_samplers_common").InterruptedException

    assert issubclass(raised, BaseException)
    assert not issubclass(raised, Exception)


def test_the_same_prompt_does_not_see_changed_conditions(host: Traced) -> None:
    def double(details: Any) -> None:
        details["params"].text_cond = details["params"].text_cond * 2

    plain = pixels(host.txt2img())
    host.script["at_event"]["cfg_denoiser"] = double
    doubled = pixels(host.txt2img())
    host.script["at_event"].clear()

    assert (plain != doubled).any()
    assert (pixels(host.txt2img()) == plain).all()


def test_copies_of_a_job_are_not_set_up_again(host: Traced) -> None:
    import copy

    processing, scripts = host.app.modules("processing"), host.app.modules("scripts")
    p = processing.StableDiffusionProcessingTxt2Img(prompt="x", steps=1, width=64, height=64, do_not_save_samples=True)
    p.scripts = scripts.scripts_txt2img
    p.script_args = host.app.script_args(False, {})
    for _ in range(2):
        processing.process_images(copy.copy(p))

    assert host.names().count("setup") == 1
    assert host.names().count("process") == 2


def test_folder_batches_reuse_one_job(host: Traced, tmp_path: Any) -> None:
    pytest.importorskip("gradio")
    for index in range(2):
        picture().save(tmp_path / f"{index}.png")
    processing, scripts = host.app.modules("processing"), host.app.modules("scripts")
    p = processing.StableDiffusionProcessingImg2Img(
        prompt="x", steps=2, width=64, height=64, denoising_strength=0.6, do_not_save_samples=True, init_images=[None]
    )
    p.scripts = scripts.scripts_img2img
    args = host.app.script_args(True, {})
    p.script_args = args
    done = host.app.modules("img2img").process_batch(p, str(tmp_path), "", "", args)

    assert len(done.images) == 2
    assert host.names().count("setup") == 1
    assert [x["p"] for x in host.details("process")] == [p, p]


def test_latents_reach_the_scripts_in_their_shapes(host: Traced) -> None:
    host.txt2img(batch_size=2)

    kwargs = host.details("process_before_every_sampling")[0]["kwargs"]
    assert kwargs["x"].shape == (2, 4, 8, 8)
    assert kwargs["x"] is kwargs["noise"]
    samples = host.details("post_sample")[0]["args"][0].samples
    assert samples.shape == (2, 4, 8, 8)
    assert torch.isfinite(samples).all()
