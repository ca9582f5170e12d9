"""Masks as the built-in ControlNets of the family take them: where a unit acts, unless its preprocessor needs one.

Against the same job with the mask given as the unit's region, and against AUTOMATIC1111's way, which has no such rule.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from tests.hosts.conftest import SIZE, Host, as_base64, picture, pixels, unit

BOX = (16, 8, 47, 39)


def mask(box: tuple[int, int, int, int] = BOX, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    made = Image.new("L", size)
    ImageDraw.Draw(made).rectangle(box, fill=255)
    return made


def painted(host: Host, *units: Any, **settings: Any) -> NDArray[np.uint8]:
    given = {"mask": mask(), "inpaint_full_res": False, "mask_blur": 0, **settings}
    return pixels(host.img2img(*units, **given))


def same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return bool(np.abs(one.astype(int) - other).max() <= 1)


@pytest.mark.parametrize("inverted", [0, 1])
def test_a_unit_without_a_picture_acts_in_the_jobs_mask_as_it_was_drawn(host: Host, inverted: int) -> None:
    """Also where the host paints outside of it."""
    source, settings = as_base64(picture(7)), {"inpainting_mask_invert": inverted}
    found = painted(host, unit(image=None), **settings)
    assert same(found, painted(host, unit(image=source, effective_region_mask=as_base64(mask())), **settings))
    assert not same(found, painted(host, unit(image=source), **settings)), "the region must matter"
    assert not same(found, painted(host, **settings))


def test_a_unit_with_a_picture_of_its_own_heeds_no_mask_of_the_job(host: Host) -> None:
    everywhere = as_base64(Image.new("L", (SIZE, SIZE), 255))
    assert same(painted(host, unit()), painted(host, unit(effective_region_mask=everywhere)))


def test_the_units_own_region_comes_first(host: Host) -> None:
    region = as_base64(mask((0, 0, 31, 63)))
    found = painted(host, unit(image=None, effective_region_mask=region))
    assert same(found, painted(host, unit(image=as_base64(picture(7)), effective_region_mask=region)))


def test_a_units_mask_is_its_region(host: Host) -> None:
    region = as_base64(mask())
    found = pixels(host.txt2img(unit(mask_image=region)))
    assert same(found, pixels(host.txt2img(unit(effective_region_mask=region))))
    assert not same(found, pixels(host.txt2img(unit())))


def test_a_mask_over_a_single_colour_is_a_drawing(host: Host) -> None:
    drawn = mask().convert("RGB")
    blank = as_base64(Image.new("RGB", drawn.size, "white"))
    found = pixels(host.txt2img(unit(image=blank, mask_image=as_base64(drawn))))
    assert same(found, pixels(host.txt2img(unit(image=as_base64(drawn)))))


def test_a_preprocessor_that_needs_the_mask_has_it(host: Host) -> None:
    """Its map says where to paint, outside of it too."""
    given = {"module": "inpaint_global_harmonious", "mask_image": as_base64(mask())}
    everywhere = as_base64(Image.new("L", (SIZE, SIZE), 255))
    found = pixels(host.txt2img(unit(**given)))
    assert same(found, pixels(host.txt2img(unit(**given, effective_region_mask=everywhere))))
    assert not np.array_equal(found, pixels(host.txt2img(unit(module="inpaint_global_harmonious"))))


@pytest.mark.parametrize("size", [(64, 48), (32, 96)])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_the_jobs_mask_is_cut_as_its_picture_is(host: Host, size: tuple[int, int], mode: int) -> None:
    """A picture that is the mask, cut by the host's own code, is what the region must be."""
    from sd_controlnet.core.units import ControlNetUnit
    from sd_controlnet.hosts.webui.regions import region_of_mask

    masking, images = host.app.modules("masking"), host.app.modules("images")
    drawn = mask((32, 16, 79, 63), size=(128, 96))
    p = SimpleNamespace(
        image_mask=drawn,
        init_images=[picture(3).resize(drawn.size)],
        batch_size=1,
        mask_round=True,
        inpainting_mask_invert=1,
        mask_blur_x=0,
        mask_blur_y=0,
        inpaint_full_res=True,
        inpaint_full_res_padding=4,
        resize_mode=mode,
        extra_generation_params={},
        width=size[0],
        height=size[1],
    )
    region = region_of_mask(p, ControlNetUnit(), SimpleNamespace(requires_mask=False))
    cut = masking.expand_crop_region(masking.get_crop_region_v2(ImageOps.invert(drawn), 4), *size, *drawn.size)
    stretched = images.resize_image(mode, drawn.resize(size, Image.Resampling.NEAREST), *drawn.size)
    expected = np.asarray(images.resize_image(2, stretched.crop(cut), *size).convert("L"))
    assert region.resize_mode.host_index == mode
    assert region.mask.shape == size[::-1] == expected.shape
    assert np.abs(region.mask.astype(int) - expected).max() <= 1
