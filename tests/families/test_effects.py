"""Noise schedule against diffusers' schedulers; the effects on predictions and pictures against their definitions."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch.nn import functional

from annotator.sd_controlnet.registry import discover as discover_annotators
from lib_controlnet.core.checkpoint import Checkpoint
from lib_controlnet.core.hints import Hint, hint_from_map
from lib_controlnet.core.modes import ResizeMode
from lib_controlnet.core.step import Pass, Step
from lib_controlnet.families.base import BoundControl, UnitSettings
from lib_controlnet.families.registry import own_controls

from .driving import predicted, settings

SIZE = 64
SHEETS = discover_annotators(effects=None)


def scheduler(kind: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind, clip_sample=False
    )


def encode(pixels: torch.Tensor) -> torch.Tensor:
    """A stand-in for the VAE: means of 8x8 pixels, and a fourth channel."""
    small = functional.avg_pool2d(pixels * 2 - 1, 8)
    return torch.cat([small, small.mean(1, keepdim=True)], dim=1)


def checkpoint(kind: str = "epsilon", seed: int = 3) -> Checkpoint:
    return Checkpoint(scheduler(kind).alphas_cumprod, kind == "v_prediction", encode, seed)


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(**changes: object) -> Step:
    x, timesteps = drawn(2, 4, SIZE // 8, SIZE // 8), torch.tensor([601.0, 601.0])
    given = Step(x, timesteps, drawn(2, 7, 24), None, (True, False), (0, 0), 0.5)
    return replace(given, **changes)  # type: ignore[arg-type]


def hint(channels: int = 3, seed: int = 0) -> Hint:
    image = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, channels), dtype=np.uint8)
    if channels == 4:
        image[:, :, 3] = 0
        image[16:40, 24:48, 3] = 255
    return hint_from_map(image, SIZE, SIZE, ResizeMode.just_resize)


def asked(name: str, **changes: object) -> UnitSettings:
    """The settings of a unit with the preprocessor of that name."""
    options = SHEETS.get(name).spec.effect_options
    return settings(**{"options": options, "checkpoint": checkpoint, **changes})


def own(name: str, *hints: Hint, **changes: object) -> BoundControl:
    """What the preprocessor of that name does in a pass."""
    return own_controls()[SHEETS.get(name).spec.effect].bind(hints, asked(name, **changes))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_pictures_and_predictions_are_diffusers(kind: str) -> None:
    own, theirs = checkpoint(kind), scheduler(kind)
    theirs.set_timesteps(1000)
    x, output = drawn(1, 4, 8, 8), drawn(1, 4, 8, 8, seed=2)
    for timestep in (0, 1, 500, 999):
        expected = theirs.step(output, timestep, x).pred_original_sample
        timesteps = torch.tensor([timestep + 0.3])
        found = own.picture(x, timesteps, output)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(own.prediction(x, timesteps, found), output, atol=2e-4, rtol=1e-3)
        noised = theirs.add_noise(x, output, torch.tensor([timestep]))
        torch.testing.assert_close(own.noised(x, timesteps, output), noised)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("timestep", [-0.4, 0.0, 998.6, 999.0, 999.4, 1000.0])
def test_the_schedule_has_an_end(timestep: float, dtype: torch.dtype) -> None:
    """Hosts in half precision round timesteps too: bfloat16 has no 999."""
    own, x = checkpoint(), drawn(1, 4, 8, 8)
    given = torch.tensor([timestep], dtype=dtype)
    whole = torch.tensor([min(max(round(float(given)), 0), 999)])
    assert torch.equal(own.noised(x, given, x), own.noised(x, whole, x))
    assert torch.equal(own.picture(x, given, x), own.picture(x, whole, x))


def means(x: torch.Tensor, radius: int) -> torch.Tensor:
    """Means of squares with repeated borders, by OpenCV."""
    side = 2 * radius + 1
    planes = [cv2.blur(plane.numpy(), (side, side), borderType=cv2.BORDER_REPLICATE) for plane in x.flatten(0, 1)]
    return torch.from_numpy(np.stack(planes)).reshape(x.shape)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("pass_", "radius"), [(Pass.base, 3), (Pass.hires, 6)])
@pytest.mark.parametrize("weight", [1.0, 0.4, 1.7])
def test_tile_colorfix_brings_the_pictures_colours(kind: str, pass_: Pass, radius: int, weight: float) -> None:
    source, now, output = hint(), step(), drawn(2, 4, 8, 8, seed=4)
    bound = own("tile_colorfix", source, params=(3.0,), pass_=pass_, checkpoint=lambda: checkpoint(kind))
    found = predicted(bound, now, output, weight=weight)
    theirs = scheduler(kind)
    theirs.set_timesteps(1000)
    x0 = theirs.step(output, 601, now.x).pred_original_sample
    wanted = x0 - means(x0, radius) + means(encode(source.image), radius)
    share = min(weight, 1.0)
    # every prediction is linear in x0: mixing predictions is mixing pictures
    mixed = share * wanted + (1 - share) * x0
    torch.testing.assert_close(theirs.step(found, 601, now.x).pred_original_sample, mixed, atol=1e-4, rtol=1e-4)


def test_sharp_lets_uncond_rows_be_dull() -> None:
    now, output = step(), drawn(2, 4, 8, 8, seed=4)
    plain = predicted(own("tile_colorfix", hint(), params=(2.0,)), now, output)
    sharp = predicted(own("tile_colorfix+sharp", hint(), params=(2.0, 50.0)), now, output)
    assert torch.equal(plain[0], sharp[0])
    schedule = checkpoint()
    x0, dull = (schedule.picture(now.x, now.timesteps, found)[1:] for found in (plain, sharp))
    torch.testing.assert_close(dull, 0.5 * means(x0, 2) + 0.5 * x0, atol=1e-4, rtol=1e-4)


def test_inpaint_only_keeps_what_lies_outside_the_mask() -> None:
    source, now, output = hint(4), step(), drawn(2, 4, 8, 8, seed=4)
    effect = own("inpaint_only", source)
    found = checkpoint().picture(now.x, now.timesteps, predicted(effect, now, output))
    before = checkpoint().picture(now.x, now.timesteps, output)
    latents = encode(torch.from_numpy(source.display[:, :, :3].copy()).permute(2, 0, 1)[None].float() / 255)
    inside = np.zeros((8, 8), bool)
    inside[1:6, 2:7] = True  # rows 16-39 and columns 24-47, and every cell that a margin of one pixel touches
    torch.testing.assert_close(found[:, :, inside], before[:, :, inside], atol=1e-4, rtol=1e-4)
    kept = latents.expand(2, -1, -1, -1)[:, :, ~inside]
    torch.testing.assert_close(found[:, :, ~inside], kept, atol=1e-4, rtol=1e-4)


def test_inpaint_only_gives_the_original_pixels_back() -> None:
    source = hint(4)
    effect = own("inpaint_only", source)
    finished = effect.decoded(torch.full((3, SIZE, SIZE), 2.0), 0)
    original = torch.from_numpy(source.display[:, :, :3].copy()).permute(2, 0, 1).float() / 255
    far = torch.ones(SIZE, SIZE, dtype=torch.bool)
    far[16 - 7 : 40 + 7, 24 - 7 : 48 + 7] = False
    assert torch.equal(finished[:, far], original[:, far])
    assert torch.equal(finished[:, 20:36, 28:44], torch.ones(3, 16, 16))
    hard = own("inpaint_only", source, blur=0).decoded(torch.full((3, SIZE, SIZE), 0.5), 0)
    assert torch.equal(hard[:, 15], original[:, 15])
    assert torch.equal(hard[:, 16, 24:48], torch.full((3, 24), 0.5))


def test_lama_starts_from_its_filling() -> None:
    source, noise = hint(4), drawn(2, 4, 8, 8)
    latents = encode(torch.from_numpy(source.display[:, :, :3].copy()).permute(2, 0, 1)[None].float() / 255)
    found = own("inpaint_only+lama", source).start_noise(noise)
    expected = scheduler("epsilon").add_noise(latents.expand(2, -1, -1, -1), noise, torch.tensor([999, 999]))
    torch.testing.assert_close(found, expected)
    assert own("inpaint_only+lama", source, pass_=Pass.hires).start_noise(noise) is noise
    assert own("inpaint_only", source).start_noise(noise) is noise


@pytest.mark.parametrize(
    ("name", "there", "back", "channel"),
    [
        ("recolor_luminance", cv2.COLOR_RGB2LAB, cv2.COLOR_LAB2RGB, 0),
        ("recolor_intensity", cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB, 2),
    ],
)
def test_recolor_takes_the_light_of_the_map(name: str, there: int, back: int, channel: int) -> None:
    first, second = hint(seed=1), hint(seed=2)
    picture = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    effect = own(name, first, second)
    for place, source in ((0, first), (1, second), (2, first)):
        pixels = (picture.permute(1, 2, 0).numpy() * 255).clip(0, 255).astype(np.uint8)
        changed = cv2.cvtColor(pixels, there)
        changed[:, :, channel] = source.display[:, :, 0]
        expected = torch.from_numpy(cv2.cvtColor(changed, back)).permute(2, 0, 1) / 255
        assert torch.equal(effect.decoded(picture, place), expected)


def test_each_picture_of_a_batch_keeps_to_its_own_hint() -> None:
    now = step(images=(1, 0), is_cond=(True, True))
    output = drawn(2, 4, 8, 8, seed=4)
    both = predicted(own("tile_colorfix", hint(seed=1), hint(seed=2), params=(3.0,)), now, output)
    for row, seed in ((0, 2), (1, 1)):
        alone = predicted(own("tile_colorfix", hint(seed=seed), params=(3.0,)), now, output)
        torch.testing.assert_close(both[row], alone[row])


def test_every_effect_is_found_under_its_names() -> None:
    assert set(own_controls()) == {"inpaint_only", "recolor", "reference", "revision", "style_align", "tile_colorfix"}
