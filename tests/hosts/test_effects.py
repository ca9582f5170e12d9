"""Preprocessors that act on the sampling, in whole jobs of the embedded host."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from lib_controlnet.families.inpaint_only import InpaintOnly
from tests.engine.tiny import hook_counts

from .conftest import SIZE, Host, as_base64, picture, pixels, unit

HIRES = {"enable_hr": True, "hr_scale": 2.0, "hr_upscaler": "Latent", "denoising_strength": 0.7}


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def hole() -> Image.Image:
    """White where to paint."""
    mask = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(mask).rectangle((24, 24, 39, 39), fill=255)
    return mask


def outside(margin: int, size: int = SIZE) -> np.ndarray:
    scale = size // SIZE
    far = np.ones((size, size), bool)
    far[24 * scale - margin : 40 * scale + margin, 24 * scale - margin : 40 * scale + margin] = False
    return far


@pytest.mark.parametrize("module", ["reference_only", "reference_adain", "reference_adain+attn"])
def test_a_reference_needs_no_model_and_leaves_nothing(host: Host, module: str):
    plain, clean = pixels(host.txt2img()), hook_counts(host.unet())
    one, again = (host.txt2img(unit(module=module, model="None")) for _ in range(2))
    other = host.txt2img(unit(module=module, model="None", image=as_base64(picture(5))))
    assert difference(plain, pixels(one)) > 0.05
    assert difference(pixels(other), pixels(one)) > 0.01
    assert np.array_equal(pixels(one), pixels(again))
    assert np.array_equal(pixels(one, 1), np.asarray(picture()))
    assert module in one.infotexts[0]
    assert hook_counts(host.unet()) == clean
    assert np.array_equal(pixels(host.txt2img()), plain)


def test_a_reference_and_a_control_model_act_together(host: Host):
    reference = unit(module="reference_only", model="None")
    both, alone = host.txt2img(reference, unit()), host.txt2img(unit())
    assert difference(pixels(both), pixels(alone)) > 0.05


def test_a_reference_outside_its_range_or_pass_does_nothing(host: Host):
    reference = {"module": "reference_only", "model": "None"}
    late = host.txt2img(unit(**reference, guidance_start=0.9, guidance_end=1.0))
    assert np.array_equal(pixels(late), pixels(host.txt2img()))
    plain = pixels(host.txt2img(**HIRES))
    seen = [pixels(host.txt2img(unit(**reference, hr_option=o), **HIRES)) for o in ("Low res only", "High res only")]
    assert all(difference(plain, found) > 0.02 for found in seen)
    assert difference(*seen) > 0.02


def test_the_hosts_own_draws_are_the_same_with_a_reference(host: Host):
    """The VAE draws when it encodes; img2img draws from the global generator after that."""
    torch.manual_seed(5)
    host.app.txt2img({}, prompt="a", seed=1, steps=1, width=SIZE, height=SIZE)
    expected = torch.rand(1)
    torch.manual_seed(5)
    units = [unit(module="reference_only", model="None", guidance_end=0.0, guidance_start=0.0)]
    host.app.txt2img({"ControlNet": units}, prompt="a", seed=1, steps=1, width=SIZE, height=SIZE)
    assert torch.equal(torch.rand(1), expected)


def test_tile_colorfix_changes_what_its_model_alone_does(host: Host):
    alone, fixed = host.txt2img(unit()), host.txt2img(unit(module="tile_colorfix", threshold_a=3))
    wide = host.txt2img(unit(module="tile_colorfix", threshold_a=32))
    assert difference(pixels(alone), pixels(fixed)) > 0.3
    assert difference(pixels(wide), pixels(fixed)) > 0.05


def test_inpaint_only_keeps_every_pixel_outside_the_mask(host: Host):
    given = {"module": "inpaint_only", "resize_mode": "Just Resize", "mask_image": as_base64(hole())}
    controlled = pixels(host.txt2img(unit(**given)))
    source = np.asarray(picture())
    assert np.array_equal(controlled[outside(7)], source[outside(7)])
    assert difference(controlled[28:36, 28:36], source[28:36, 28:36]) > 5
    twice = pixels(host.txt2img(unit(**given), **HIRES))
    assert twice.shape == (2 * SIZE, 2 * SIZE, 3)
    expected = cv2.resize(source, (2 * SIZE, 2 * SIZE), interpolation=cv2.INTER_CUBIC)
    assert np.abs(twice[outside(8, 2 * SIZE)].astype(int) - expected[outside(8, 2 * SIZE)]).max() <= 1


def test_inpaint_only_leaves_the_mask_to_a_host_that_paints_itself(host: Host):
    own = {"image": None, "module": "inpaint_only"}
    inpainted = host.img2img(unit(**own), mask=hole(), inpainting_fill=1)
    assert "Module: inpaint," in inpainted.infotexts[0]


@pytest.mark.parametrize(
    ("module", "space", "channel"),
    [("recolor_luminance", cv2.COLOR_RGB2LAB, 0), ("recolor_intensity", cv2.COLOR_RGB2HSV, 2)],
)
def test_recolor_gives_the_result_the_light_of_the_map(host: Host, module: str, space: int, channel: int):
    smooth = Image.fromarray(cv2.GaussianBlur(np.asarray(picture()), (0, 0), 9)).convert("L").convert("RGB")
    made = host.txt2img(unit(module=module, image=as_base64(smooth), resize_mode="Just Resize"), batch_size=2)
    first = made.index_of_first_image
    light = pixels(made, -1)[:, :, 0].astype(int)
    for number in range(2):
        found = cv2.cvtColor(pixels(made, first + number), space)[:, :, channel].astype(int)
        # colours that no screen can show are cut when the picture becomes RGB again
        assert np.median(np.abs(found - light)) <= 2
    assert difference(pixels(made, first), pixels(made, first + 1)) > 0.3


def test_an_effect_may_choose_the_noise_of_a_pass(host: Host, monkeypatch: pytest.MonkeyPatch):
    given = unit(module="inpaint_only", mask_image=as_base64(hole()))
    started: list[torch.Tensor] = []
    seen = host.unet().register_forward_pre_hook(lambda _unet, args: started.append(args[0][0]))
    for kind in _loaded(InpaintOnly):
        monkeypatch.setattr(kind, "start_noise", lambda _self, noise: torch.ones_like(noise))
    try:
        host.txt2img(given, steps=1)
    finally:
        seen.remove()
    assert torch.equal(started[0], started[0][0, 0, 0].expand_as(started[0]))


def _loaded(kind: type) -> list[type]:
    """The class as the tests import it and as the extension has it mounted under its private name."""
    return [
        getattr(module, kind.__name__)
        for name, module in list(sys.modules.items())
        if name.endswith(".families.inpaint_only") and hasattr(module, kind.__name__)
    ]


def test_pictures_of_another_size_are_said(host: Host, monkeypatch: pytest.MonkeyPatch):
    for kind in _loaded(InpaintOnly):
        monkeypatch.setattr(kind, "decoded", lambda *_: (_ for _ in ()).throw(ValueError("of another size")))
    made = host.txt2img(unit(module="inpaint_only", mask_image=as_base64(hole())))
    assert "of another size" in made.comments
