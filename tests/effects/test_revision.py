"""ReVision: what SDXL's U-Net is told, and that it really gets it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler

from lib_controlnet.core.errors import BaseModelError
from lib_controlnet.core.schedule import GuidanceRange
from lib_controlnet.core.step import Step
from lib_controlnet.effects.revision import Revision
from lib_controlnet.effects.running import RunningEffects
from lib_controlnet.engine.injection import UNetHooks
from tests.engine.tiny import SDXL_SHAPED, Adding, tiny_unet

from .test_sampling import drawn, sampling, setup, step

WIDTH = 24
"""Of the embedding; SDXL's is 1280 of 2816."""


def told(name: str = "revision_clipvision", **changes: object) -> Revision:
    embeds = {"image_embeds": drawn(1, WIDTH, seed=6)}
    given = {"sdxl": True, "tensors": [embeds], "params": (0.0,), **changes}
    return Revision(setup(name, **given))


def sdxl_step():
    return step(context=drawn(2, 7, 2048), y=drawn(2, SDXL_SHAPED.adm_channels))


def running(*effects: Revision, start: float = 0.0) -> RunningEffects:
    return RunningEffects([(GuidanceRange(start, 1.0), effect) for effect in effects])


@pytest.mark.parametrize("slider", [0.0, 0.25, 1.0])
def test_the_embedding_is_noised_as_far_as_the_slider_says(slider: float) -> None:
    scheduler = DDPMScheduler(beta_start=1e-4, beta_end=2e-2, beta_schedule="scaled_linear")
    noise = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(3))
    timestep = torch.tensor([min(int(slider * 1000), 999)])
    expected = 0.7 * scheduler.add_noise(drawn(1, WIDTH, seed=6), noise, timestep)
    found = told(weight=0.7, params=(slider,)).vector()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_cond_rows_are_told_and_the_others_are_told_nothing() -> None:
    now, first, second = sdxl_step(), told(), told(weight=0.5)
    found = running(first, second).conditioned(now)
    torch.testing.assert_close(found.y[0, :WIDTH], (first.vector() + second.vector())[0])
    assert not found.y[1, :WIDTH].any()
    assert torch.equal(found.y[:, WIDTH:], now.y[:, WIDTH:])
    assert found.context is now.context
    assert torch.equal(now.y, sdxl_step().y), "the host's own tensor stays as it was"


@pytest.mark.parametrize("effect", [told("revision_ignore_prompt"), told(sampling=replace(sampling(), no_prompt=True))])
def test_text_may_be_ignored(effect: Revision) -> None:
    assert not running(effect).conditioned(sdxl_step()).context.any()


def test_outside_its_range_nothing_changes() -> None:
    now = sdxl_step()
    assert running(told(), start=0.9).conditioned(now) is now


def test_other_checkpoints_are_refused() -> None:
    with pytest.raises(BaseModelError, match="SDXL"):
        told(sdxl=False)


class Telling(Adding):
    """Gives the U-Net what a changed step says."""

    def __init__(self, changed: Step) -> None:
        super().__init__(None)
        self._changed = changed

    def begin(self, *_: object) -> tuple[Step, None]:
        return self._changed, None


@pytest.mark.parametrize("by_name", [False, True])
def test_the_unet_gets_what_the_step_says(by_name: bool) -> None:
    unet, now = tiny_unet(SDXL_SHAPED), sdxl_step()
    changed = running(told("revision_ignore_prompt")).conditioned(now)
    hooks = UNetHooks(unet, Telling(changed))
    with torch.no_grad():
        expected_plain = unet.forward(now.x, now.timesteps, now.context, now.y)
        expected = unet.forward(now.x, now.timesteps, changed.context, changed.y)
        if by_name:
            found = unet(now.x, timesteps=now.timesteps, context=now.context, y=now.y)
        else:
            found = unet(now.x, now.timesteps, now.context, now.y)
        hooks.remove()
        assert torch.equal(found, expected)
        assert torch.equal(unet(now.x, now.timesteps, now.context, now.y), expected_plain)
    assert not torch.equal(expected, expected_plain)
