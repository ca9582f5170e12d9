"""The only-masked crop where `resize_image` answers in RGB, as A1111's mode 2 does for grey pictures too."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lib_controlnet.core.modes import ResizeMode
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.hosts.webui.pictures import unit_pictures

REGION = (8, 4, 40, 36)


@pytest.fixture
def rgb_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def module(name: str, **functions: object) -> None:
        made = ModuleType(name)
        made.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, name, made)

    module("modules")
    module("modules.images", resize_image=lambda _mode, image, w, h: image.resize((w, h), Image.NEAREST).convert("RGB"))
    module("modules.masking", get_crop_region=lambda *_: REGION, expand_crop_region=lambda region, *_: region)
    module("modules.processing", create_binary_mask=lambda image, **_: image.convert("L"))
    for name in ("images", "masking", "processing"):
        setattr(sys.modules["modules"], name, sys.modules[f"modules.{name}"])


def test_the_crop_is_one_picture_of_three_channels(rgb_host: None):
    source = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    job = SimpleNamespace(
        image_mask=Image.new("L", (64, 64), 255),
        mask_round=True,
        inpainting_mask_invert=0,
        mask_blur_x=0,
        mask_blur_y=0,
        inpaint_full_res=True,
        inpaint_full_res_padding=0,
        extra_generation_params={},
        width=32,
        height=32,
    )
    mask = source[:, :, 0].copy()
    unit = ControlNetUnit(image=source, mask=mask, resize_mode=ResizeMode.just_resize)
    (picture,) = unit_pictures(job, unit, SimpleNamespace(accepts_mask=True))
    left, top, right, bottom = REGION
    assert np.array_equal(picture.image, source[top:bottom, left:right])
    assert np.array_equal(picture.mask, mask[top:bottom, left:right])
