"""ReVision: what SDXL's U-Net is told, and that it really gets it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler

from lib_controlnet.core.errors import BaseModelError
from lib_controlnet.core.step import Step
from lib_controlnet.engine.injection import UNetHooks
from lib_controlnet.families.base import BaseModel
from lib_controlnet.families.revision import EFFECT, Revision
from tests.engine.tiny import SD1_SHAPED, SDXL_SHAPED, Adding, tiny_unet

from .driving import conditioned
from .test_effects import asked, checkpoint, drawn, step

WIDTH = 24
"""Of the embedding; SDXL's is 1280 of 2816."""


def told(name: str = "revision_clipvision", **changes: object) -> Revision:
    embeds = {"image_embeds": drawn(1, WIDTH, seed=6)}
    return Revision([], asked(name, **{"tensors": [embeds], "params": (0.0,), **changes}))


def sdxl_step():
    return step(context=drawn(2, 7, 2048), y=drawn(2, SDXL_SHAPED.adm_channels))


def vector(effect: Revision) -> torch.Tensor:
    """What a cond row is told."""
    return conditioned(sdxl_step(), effect).y[:1, :WIDTH]


@pytest.mark.parametrize("slider", [0.0, 0.25, 1.0])
def test_the_embedding_is_noised_as_far_as_the_slider_says(slider: float) -> None:
    scheduler = DDPMScheduler(beta_start=1e-4, beta_end=2e-2, beta_schedule="scaled_linear")
    noise = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(3))
    timestep = torch.tensor([min(int(slider * 1000), 999)])
    expected = 0.7 * scheduler.add_noise(drawn(1, WIDTH, seed=6), noise, timestep)
    found = vector(told(weight=0.7, params=(slider,)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_cond_rows_are_told_and_the_others_are_told_nothing() -> None:
    now, first, second = sdxl_step(), told(), told(weight=0.5)
    found = conditioned(now, first, second)
    torch.testing.assert_close(found.y[0, :WIDTH], (vector(told()) + vector(told(weight=0.5)))[0])
    assert not found.y[1, :WIDTH].any()
    assert torch.equal(found.y[:, WIDTH:], now.y[:, WIDTH:])
    assert found.context is now.context
    assert torch.equal(now.y, sdxl_step().y), "the host's own tensor stays as it was"


@pytest.mark.parametrize(
    "effect", [told("revision_ignore_prompt"), told(checkpoint=lambda: replace(checkpoint(), no_prompt=True))]
)
def test_text_may_be_ignored(effect: Revision) -> None:
    assert not conditioned(sdxl_step(), effect).context.any()


def test_outside_its_range_nothing_changes() -> None:
    now = sdxl_step()
    assert conditioned(now, told(), guidance_start=0.9) is now


def test_other_checkpoints_are_refused() -> None:
    with pytest.raises(BaseModelError, match="SDXL"):
        EFFECT.check(BaseModel(SD1_SHAPED, "tiny.safetensors"))


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
    changed = conditioned(now, told("revision_ignore_prompt"))
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
