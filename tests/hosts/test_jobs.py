"""Whole jobs in the embedded host: control acts where it should, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.engine.tiny import hook_counts

from .conftest import Host, as_base64, picture, pixels, unit


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_control_changes_the_picture_and_the_map_follows_it(host: Host):
    plain, controlled = host.txt2img(), host.txt2img(unit(resize_mode="Just Resize"))
    assert len(plain.images) == 1
    assert len(controlled.images) == 2
    assert difference(pixels(plain), pixels(controlled)) > 1
    assert np.array_equal(pixels(controlled, 1), np.asarray(picture()))
    assert np.array_equal(pixels(host.txt2img()), pixels(plain))


def test_weight_zero_is_no_control_bit_for_bit(host: Host):
    assert np.array_equal(pixels(host.txt2img(unit(weight=0))), pixels(host.txt2img()))


def test_weights_and_ranges_grow(host: Host):
    plain = pixels(host.txt2img(steps=4))
    by_weight = [difference(plain, pixels(host.txt2img(unit(weight=w), steps=4))) for w in (0.2, 0.6, 1.0)]
    by_end = [difference(plain, pixels(host.txt2img(unit(guidance_end=e), steps=4))) for e in (0.0, 0.5, 1.0)]
    assert by_weight == sorted(by_weight)
    assert 0 < by_end[0] < by_end[2]


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ SDE", "DDIM", "LMS", "DPM2"])
def test_every_sampler_is_controlled_and_repeatable(host: Host, sampler: str):
    plain = pixels(host.txt2img(sampler_name=sampler, steps=3))
    first, second = (pixels(host.txt2img(unit(), sampler_name=sampler, steps=3)) for _ in range(2))
    assert difference(plain, first) > 0.5
    assert np.array_equal(first, second)
    assert np.array_equal(pixels(host.txt2img(sampler_name=sampler, steps=3)), plain)


def test_batches_give_each_image_what_it_gets_alone(host: Host):
    batch = host.txt2img(unit(), batch_size=2, n_iter=2)
    assert len(batch.images) == 5 + (batch.index_of_first_image > 0)
    for number in range(4):
        alone = host.txt2img(unit(), seed=11 + number)
        assert difference(pixels(batch, batch.index_of_first_image + number), pixels(alone)) < 0.1


@pytest.mark.parametrize(
    "options",
    [{"batch_cond_uncond": False}, {"pad_cond_uncond": True}, {"skip_early_cond": 0.5}, {"s_min_uncond": 3.0}],
)
def test_how_the_host_batches_rows_does_not_matter(host: Host, options: dict):
    long = "a red heart, " * 40
    settings = {"prompt": long, "negative_prompt": "blue", "steps": 4}
    shared = host.app.modules("shared")
    before = {key: shared.opts.data.get(key) for key in options}
    expected = {}
    for mode in ("Balanced", "ControlNet is more important"):
        expected[mode] = pixels(host.txt2img(unit(control_mode=mode), **settings))
    try:
        shared.opts.data.update(options)
        plain = pixels(host.txt2img(**settings))
        for mode, other in expected.items():
            got = pixels(host.txt2img(unit(control_mode=mode), **settings))
            assert difference(plain, got) > 0.5
            if options == {"batch_cond_uncond": False}:  # the others change the arithmetic by themselves
                assert difference(got, other) < 0.1
    finally:
        shared.opts.data.update(before)


def test_and_prompts_control_every_sub_prompt(host: Host):
    prompt = "a red heart AND a blue star :0.6"
    plain, controlled = host.txt2img(prompt=prompt, batch_size=2), host.txt2img(unit(), prompt=prompt, batch_size=2)
    first = plain.index_of_first_image
    assert all(difference(pixels(plain, first + i), pixels(controlled, first + i)) > 0.5 for i in range(2))


def test_two_units_differ_from_each_alone(host: Host):
    units = unit(), unit(model="second", weight=0.7)
    together, first, second = host.txt2img(*units), host.txt2img(units[0]), host.txt2img(units[1])
    assert len(together.images) == 3
    assert difference(pixels(together), pixels(first)) > 0.5
    assert difference(pixels(together), pixels(second)) > 0.5


def test_hires_fix_controls_both_passes_with_a_map_each(host: Host):
    hires = {"enable_hr": True, "hr_scale": 2.0, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    plain = pixels(host.txt2img(**hires))
    results = {
        option: host.txt2img(unit(hr_option=option), **hires) for option in ("Both", "Low res only", "High res only")
    }
    assert [image.size for image in results["Both"].images] == [(128, 128), (128, 128), (64, 64)]
    seen = [plain, *(pixels(result) for result in results.values())]
    assert all(difference(a, b) > 0.3 for i, a in enumerate(seen) for b in seen[:i])


def test_img2img_takes_its_source_when_the_unit_has_no_picture(host: Host):
    own = host.img2img(unit(image=None, resize_mode="Crop and Resize"))
    given = host.img2img(unit(image=None), init_images=[picture(7)])
    assert np.array_equal(pixels(own, 1), np.asarray(picture(7)))
    assert np.array_equal(pixels(own), pixels(given))
    assert difference(pixels(own), pixels(host.img2img())) > 0.5


def test_a_batch_of_sources_has_a_map_for_each(host: Host):
    sources = [picture(7), Image.new("RGB", (64, 64), (255, 0, 0))]
    batch = host.img2img(unit(image=None), init_images=sources, batch_size=2)
    first = batch.index_of_first_image
    maps = batch.images[-2:]
    assert [np.array_equal(np.asarray(m), np.asarray(s)) for m, s in zip(maps, sources, strict=True)] == [True, True]
    for number, source in enumerate(sources):
        same_for_all = unit(image=as_base64(source), resize_mode="Just Resize")
        others = host.img2img(same_for_all, init_images=sources, batch_size=2)
        gaps = [difference(pixels(batch, first + i), pixels(others, first + i)) for i in range(2)]
        assert gaps[number] < 0.01
        assert gaps[1 - number] > 10 * gaps[number] + 0.01, gaps


def test_only_masked_inpainting_crops_the_map_as_the_host_crops_the_picture(host: Host):
    source = picture(9, 128)
    mask = Image.new("L", (128, 128))
    mask.paste(255, (40, 50, 90, 100))
    job = {
        "init_images": [source],
        "mask": mask,
        "inpaint_full_res": True,
        "inpaint_full_res_padding": 8,
        "mask_blur": 0,
    }
    crops = []
    images = host.app.modules("images")
    original = images.resize_image

    def spy(mode, image, width, height, *args, **kwargs):
        result = original(mode, image, width, height, *args, **kwargs)
        if mode == 2 and image.mode == "RGB" and image.size != (width, height):
            crops.append(np.asarray(result.convert("RGB")))
        return result

    images.resize_image = spy
    try:
        result = host.img2img(unit(image=None), **job)
    finally:
        images.resize_image = original
    assert crops, "the host itself cropped and resized its source"
    assert difference(pixels(result, -1), crops[0]) < 1.5
    whole = host.img2img(unit(image=None), **{**job, "inpaint_full_res": False})
    assert difference(pixels(whole, -1), crops[0]) > 10


def test_infotext_and_its_way_back(host: Host):
    result = host.txt2img({"enabled": False}, unit(module="canny", threshold_a=50, weight=0.8))
    text = result.infotexts[0]
    assert 'ControlNet 1: "Module: canny, Model: first [' in text
    assert "ControlNet 0" not in text
    parsed = host.app.modules("infotext_utils").parse_generation_parameters(text)
    from lib_controlnet.core.infotext import read_units

    units, problems = read_units(parsed)
    assert not problems
    assert (units[1].preprocessor, units[1].weight, units[1].threshold_a) == ("canny", 0.8, 50.0)


def test_nothing_stays_behind(host: Host):
    before = hook_counts(host.unet())
    host.txt2img(unit(), unit(model="second"))
    host.img2img(unit())
    assert hook_counts(host.unet()) == before


def test_a_size_that_is_no_multiple_of_64(host: Host):
    result = host.txt2img(unit(), width=72, height=104)
    assert result.images[0].size == (72, 104)
    assert result.images[1].size == (72, 104)
    assert difference(pixels(result), pixels(host.txt2img(width=72, height=104))) > 0.5


def test_low_vram_gives_the_same_picture(host: Host):
    assert np.array_equal(pixels(host.txt2img(unit(low_vram=True))), pixels(host.txt2img(unit())))


@pytest.fixture
def inpainting(host: Host):
    host.load("inpainting")
    yield host
    host.load("one")


def test_a_checkpoint_with_nine_channels_is_controlled_by_its_first_four(inpainting: Host):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    job = {"mask": mask, "inpaint_full_res": False, "mask_blur": 0, "denoising_strength": 1.0}
    plain, controlled = inpainting.img2img(**job), inpainting.img2img(unit(), **job)
    inside = np.s_[20:44, 20:44]
    assert difference(pixels(plain)[inside], pixels(controlled)[inside]) > 0.5
    assert np.array_equal(pixels(plain)[:8], pixels(controlled)[:8]), "outside of the mask the source stays"
    assert difference(pixels(inpainting.txt2img()), pixels(inpainting.txt2img(unit()))) > 0.5


@pytest.fixture
def options(host: Host):
    data = host.app.modules("shared").opts.data
    before = dict(data)
    yield data
    data.clear()
    data.update(before)


def test_maps_are_saved_and_shown_as_the_settings_say(host: Host, options: dict, tmp_path):
    options["control_net_detectmap_autosaving"] = True
    options["control_net_detectedmap_dir"] = str(tmp_path)
    options["control_net_no_detectmap"] = True
    assert len(host.txt2img(unit(module="canny", resize_mode="Just Resize")).images) == 1
    (saved,) = (tmp_path / "canny").rglob("*.png")
    options["control_net_no_detectmap"] = False
    options["control_net_detectmap_autosaving"] = False
    shown = host.txt2img(unit(module="canny", resize_mode="Just Resize")).images[1]
    assert np.array_equal(np.asarray(Image.open(saved).convert("RGB")), np.asarray(shown.convert("RGB")))
    assert len(host.txt2img(unit(save_detected_map=False)).images) == 1
    assert len(list(tmp_path.rglob("*.png"))) == 1
