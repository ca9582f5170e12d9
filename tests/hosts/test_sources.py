"""What a unit sees of img2img's own pictures and masks: a batch's sources, and the region of a part that is cut."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lib_controlnet.core.units import ControlNetUnit

from .conftest import SIZE, Host, as_base64, picture, pixels, unit

BOX = (8, 8, 39, 39)
"""What is painted: corners, both included."""


def mask(box: tuple[int, int, int, int] = BOX, size: int = SIZE) -> Image.Image:
    made = Image.new("L", (size, size))
    ImageDraw.Draw(made).rectangle(box, fill=255)
    return made


def masked(host: Host, *units: Any, padding: int = 0, **settings: Any) -> Any:
    return host.img2img(
        *units, mask=mask(), inpaint_full_res=True, inpaint_full_res_padding=padding, mask_blur=0, **settings
    )


@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize("scale", [1, 2])
def test_a_region_outside_of_what_is_painted_leaves_it_uncontrolled(host: Host, padding: int, scale: int):
    region = mask((52, 0, 63, 63)).resize((SIZE * scale, SIZE * scale), Image.Resampling.NEAREST)
    found = masked(host, unit(effective_region_mask=as_base64(region)), padding=padding)
    assert np.array_equal(pixels(found), pixels(masked(host, padding=padding)))
    assert "leaves out the part that is painted" in found.infotexts[0]


@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize("scale", [1, 2])
def test_a_region_around_what_is_painted_controls_all_of_it(host: Host, padding: int, scale: int):
    region = mask((0, 0, 47, 47)).resize((SIZE * scale, SIZE * scale), Image.Resampling.NEAREST)
    found = masked(host, unit(effective_region_mask=as_base64(region)), padding=padding)
    assert np.array_equal(pixels(found), pixels(masked(host, unit(), padding=padding)))
    assert not np.array_equal(pixels(found), pixels(masked(host, padding=padding)))


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (96, 32), (40, 56)])
@pytest.mark.parametrize("box", [(4, 4, 20, 20), (0, 0, 63, 10), (50, 2, 63, 63)])
def test_a_region_is_cut_as_the_host_cuts_pictures(host: Host, size: tuple[int, int], box: tuple[int, int, int, int]):
    """Against the host's own cut of the same picture; both are exact where a region is 0 or 255 around."""
    from sd_controlnet.hosts.webui.regions import unit_region

    masking, images = host.app.modules("masking"), host.app.modules("images")
    p = SimpleNamespace(
        image_mask=mask(box),
        mask_round=True,
        inpainting_mask_invert=0,
        mask_blur_x=0,
        mask_blur_y=0,
        inpaint_full_res=True,
        inpaint_full_res_padding=2,
        extra_generation_params={},
        width=size[0],
        height=size[1],
    )
    region = np.asarray(mask((0, 0, 30, 40)))
    got = unit_region(p, ControlNetUnit(region_mask=region), region)
    cut = masking.expand_crop_region(masking.get_crop_region_v2(p.image_mask, 2), *size, SIZE, SIZE)
    expected = np.asarray(images.resize_image(2, Image.fromarray(region).crop(cut), *size).convert("L"))
    assert got.shape == expected.shape == size[::-1]
    assert np.abs(got.astype(int) - expected).mean() < 6
    assert set(np.unique(region[cut[1] : cut[3], cut[0] : cut[2]])) - set(np.unique(got)) == set()


@pytest.mark.parametrize("wanted", [3, 5])
def test_fewer_sources_than_the_batch_has_places(host: Host, wanted: int):
    """The host makes one picture for each source; each is controlled by its own."""
    sources = [picture(21), picture(22)]
    exact = host.img2img(unit(image=None), init_images=sources, batch_size=2)
    found = host.img2img(unit(image=None), init_images=sources, batch_size=wanted)
    count = exact.infotexts.__len__()
    assert len(found.infotexts) == count
    for index in range(2):
        assert np.array_equal(pixels(found, index), pixels(exact, index))
    one = host.img2img(unit(image=as_base64(picture(21))), init_images=sources, batch_size=wanted)
    assert not np.array_equal(pixels(one, 1), pixels(found, 1))


def test_here_a_mask_is_no_region(host: Host):
    """Hosts of Forge's family have it otherwise (tests/forge/test_masks.py)."""
    given = {"mask": mask(), "inpaint_full_res": False, "mask_blur": 0}
    own, none = (pixels(host.img2img(unit(image=image), **given)) for image in (as_base64(picture(7)), None))
    assert np.array_equal(own, none)
