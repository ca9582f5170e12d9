"""StyleAlign's patches against sd-webui-controlnet's replaced forwards, written out on the same U-Net."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lib_controlnet.core.step import Step
from lib_controlnet.families.registry import own_controls
from lib_controlnet.nets.attention import BasicTransformerBlock
from tests.engine.tiny import SD1_SHAPED, SDXL_SHAPED, hook_counts

from .driving import hooked, settings
from .test_effects import drawn, step
from .test_reference import attentive_unet

ROWS = {
    "two pictures": ((True, True, False, False), (0, 1, 0, 1)),
    "uncond first": ((False, False, False, True, True, True), (0, 1, 2, 0, 1, 2)),
    "AND": ((True, True, True, True, False, False), (0, 0, 1, 1, 0, 1)),
    "unequal AND": ((True, True, True, False, False), (0, 0, 1, 0, 1)),
    "conds alone": ((True, True), (0, 1)),
}


def rows(name: str, sdxl: bool = False) -> Step:
    is_cond, images = ROWS[name]
    count, width = len(is_cond), 2048 if sdxl else 24
    y = drawn(count, SDXL_SHAPED.adm_channels or 0) if sdxl else None
    times = torch.full((count,), 601.0)
    return step(
        x=drawn(count, 4, 8, 8), timesteps=times, context=drawn(count, 7, width), y=y, is_cond=is_cond, images=images
    )


def literal(unet: nn.Module, now: Step, weight: float) -> torch.Tensor:
    """The peer's way: rows of a class become one long row in the self-attention, and are cut apart again."""
    classes = [[row for row, cond in enumerate(now.is_cond) if cond is kind] for kind in (True, False)]

    def shared(attention: Any, tokens: torch.Tensor) -> torch.Tensor:
        output = torch.zeros_like(tokens)
        for chosen in filter(None, classes):
            part = tokens[chosen]
            output[chosen] = attention(part.reshape(1, -1, part.shape[2])).reshape(part.shape)
        return output * weight + attention(tokens) * (1 - weight)

    def forward(block: Any, x: torch.Tensor, context: Any = None) -> torch.Tensor:
        x = shared(block.attn1, block.norm1(x)) + x
        x = block.attn2(block.norm2(x), context) + x
        return block.ff(block.norm3(x)) + x

    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            block.forward = forward.__get__(block)
    with torch.no_grad():
        return unet(now.x, now.timesteps, now.context, now.y)


@pytest.mark.parametrize(
    ("name", "weight", "sdxl"),
    [*((name, 1.0, False) for name in ROWS), ("two pictures", 0.4, False), ("unequal AND", 1.0, True)],
)
def test_the_patches_do_what_the_peers_forwards_do(name: str, weight: float, sdxl: bool) -> None:
    unet = attentive_unet(SDXL_SHAPED) if sdxl else attentive_unet()
    now = rows(name, sdxl)
    given = own_controls()["style_align"].bind([], settings(SDXL_SHAPED if sdxl else SD1_SHAPED))
    clean = hook_counts(unet)
    with torch.no_grad():
        plain = unet(now.x, now.timesteps, now.context, now.y)
    found = hooked(unet, now, given, weight=weight)
    assert hook_counts(unet) == clean
    expected = literal(unet, now, weight)
    assert (expected - plain).abs().max() > 1e-4, "nothing to align would prove nothing"
    torch.testing.assert_close(found, expected, atol=4e-6, rtol=1e-5)


def test_one_picture_stays_what_it_is() -> None:
    unet, now = attentive_unet(), step()
    with torch.no_grad():
        plain = unet(now.x, now.timesteps, now.context, now.y)
    assert torch.equal(hooked(unet, now, own_controls()["style_align"].bind([], settings())), plain)
