"""The rows of a picture differ in their prompt only: what precedes the first look at it is computed once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lib_controlnet.core.hints import Hint
from lib_controlnet.core.step import Step
from lib_controlnet.families.controlnet import LoadedControlNet, Reading
from tests.engine.tiny import SDXL_SHAPED, tiny_controlnet
from tests.families.driving import settings


def bound(net, hints=1):
    generator = torch.Generator().manual_seed(9)
    pictures = torch.rand(hints, 1, 3, 64, 64, generator=generator)
    images = [Hint(picture, None, np.zeros((64, 64, 3), np.uint8)) for picture in pictures]
    model = LoadedControlNet(Path("net"), net, net.control_config, Reading(pooled=False), holds_base=False)
    return model.bind(images, settings())


def guided(net, pictures, prompts=2) -> Step:
    """The rows of `pictures` latents, each under `prompts` prompts."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(pictures, 4, 8, 8, generator=generator).repeat(prompts, 1, 1, 1)
    context = torch.randn(pictures * prompts, 5, net.config.context_dim, generator=generator)
    timesteps = torch.linspace(10, 900, pictures).repeat(prompts)
    is_cond = tuple(row < pictures for row in range(len(x)))
    return Step(x, timesteps, context, None, is_cond, tuple(range(pictures)) * prompts, 0.5)


def rows_seen(net) -> list[int]:
    """Filled with the number of rows that the first block computes, call by call."""
    seen: list[int] = []
    net.input_blocks[0].register_forward_hook(lambda _block, args, _output: seen.append(len(args[0])))
    return seen


def reference(net, step, hints):
    """Every row computed for itself."""
    features = bound(net, hints)._features_at(step.x)
    features = features[[image % hints for image in step.images]]
    with torch.no_grad():
        rows = [
            net(step.x[[row]], features[[row]], step.timesteps[[row]], step.context[[row]]) for row in range(step.batch)
        ]
    return [torch.cat(residuals) for residuals in zip(*rows, strict=True)]


@pytest.mark.parametrize(("pictures", "prompts", "hints"), [(1, 2, 1), (3, 2, 1), (2, 2, 2), (2, 3, 2), (1, 1, 1)])
def test_the_residuals_are_those_of_every_row_for_itself(pictures, prompts, hints):
    net = tiny_controlnet()
    step, seen = guided(net, pictures, prompts), rows_seen(net)
    with torch.no_grad():
        control = bound(net, hints).residuals(step)
    assert seen == [pictures]
    for ours, theirs in zip([*control.skip, control.middle], reference(net, step, hints), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


def other_latents(step):
    return replace(step, x=torch.cat([step.x[:1], step.x[1:] + 1e-3]))


def other_timesteps(step):
    return replace(step, timesteps=step.timesteps + torch.arange(step.batch))


def two_prompts_for_one(step):
    """AND: the rows of a picture are neighbours, not turns."""
    order = [0, 2, 1, 3]
    return replace(step, x=step.x[order], timesteps=step.timesteps[order], images=(0, 0, 1, 1))


@pytest.mark.parametrize(("change", "pictures"), [(other_latents, 1), (other_timesteps, 1), (two_prompts_for_one, 2)])
def test_rows_that_repeat_nothing_are_all_computed(change, pictures):
    net = tiny_controlnet()
    step, control = guided(net, pictures), bound(net)
    with torch.no_grad():
        control.residuals(step)
        seen = rows_seen(net)
        changed = change(step)
        residuals = control.residuals(changed)
    assert seen == [step.batch]
    for ours, theirs in zip([*residuals.skip, residuals.middle], reference(net, changed, 1), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


def test_pooled_embeddings_make_every_row_its_own():
    net = tiny_controlnet(SDXL_SHAPED)
    step = guided(net, 1)
    step, seen = replace(step, y=torch.randn(2, SDXL_SHAPED.adm_channels)), rows_seen(net)
    with torch.no_grad():
        bound(net).residuals(step)
    assert seen == [2]


def test_conditioning_channels_of_the_host_do_not_count():
    """pix2pix and inpainting checkpoints give more channels than a ControlNet reads, the unconds other ones."""
    net = tiny_controlnet()
    step, seen = guided(net, 1), rows_seen(net)
    wide = torch.cat([step.x, torch.randn(2, 4, 8, 8)], dim=1)
    with torch.no_grad():
        bound(net).residuals(replace(step, x=wide))
    assert seen == [1]
