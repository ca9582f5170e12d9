"""Hooks on the U-Net against cldm's controlled forward, and that nothing of them stays."""

from __future__ import annotations

import pytest
import torch

from lib_controlnet.core.residuals import Residuals
from lib_controlnet.engine.injection import RaisingHook, UNetHooks

from .tiny import SD1_SHAPED, SDXL_SHAPED, Adding, cldm_forward, hook_counts, inputs, tiny_controlnet, tiny_unet


@pytest.mark.parametrize("config", [SD1_SHAPED, SDXL_SHAPED], ids=["sd1", "sdxl"])
@pytest.mark.parametrize("by_name", [False, True], ids=["ldm call", "sgm call"])
@torch.no_grad()
def test_hooks_equal_the_reference_bit_for_bit(config, by_name):
    unet, net = tiny_unet(config), tiny_controlnet(config)
    given = inputs(config)
    features = net.encode_hint(torch.rand(1, 3, 128, 128))
    residuals = net(given["x"], features, given["timesteps"], given["context"], given["y"])
    expected = cldm_forward(unet, **given, control=residuals)
    plain = unet(**given)
    assert (expected - plain).abs().max() > 0.01, "the residuals must matter"

    hooks = UNetHooks(unet, Adding(Residuals(skip=residuals[:-1], middle=residuals[-1])))
    x, timesteps = given["x"], given["timesteps"]
    if by_name:
        got = unet(x, timesteps=timesteps, context=given["context"], y=given["y"])
    else:
        got = unet(x, timesteps, given["context"], given["y"])
    assert torch.equal(got, expected)
    hooks.remove()
    assert torch.equal(unet(**given), plain)


@torch.no_grad()
def test_encoder_residuals_reach_trunk_and_skip():
    unet, given = tiny_unet(), inputs(SD1_SHAPED)
    residual = torch.randn(2, 32, 16, 16)
    emb = unet.embed(given["timesteps"], None)
    h, skips = given["x"], []
    for index, module in enumerate(unet.input_blocks):
        h = module(h, emb, given["context"])
        if index == 2:
            h = h + residual
        skips.append(h)
    h = unet.middle_block(h, emb, given["context"])
    for module in unet.output_blocks:
        h = module(torch.cat([h, skips.pop()], dim=1), emb, given["context"])
    expected = unet.out(h)

    hooks = UNetHooks(unet, Adding(Residuals(encoder=(None, None, residual))))
    assert torch.equal(unet(**given), expected)
    hooks.remove()


@torch.no_grad()
def test_two_hooks_add_up_and_come_off_in_any_order():
    given = inputs(SD1_SHAPED)
    middle = torch.randn(2, 64, 2, 2, generator=torch.Generator().manual_seed(5)) * 9
    for first_off in (0, 1):
        unet = tiny_unet()
        before, plain = hook_counts(unet), unet(**given)
        pair = [UNetHooks(unet, Adding(Residuals(middle=part))) for part in (middle, -middle)]
        both = unet(**given)
        pair[first_off].remove()
        one = unet(**given)
        pair[1 - first_off].remove()
        pair[first_off].remove()
        assert torch.allclose(both, plain, atol=1e-5)
        assert (one - plain).abs().max() > 1e-3
        assert torch.equal(unet(**given), plain)
        assert hook_counts(unet) == before


@torch.no_grad()
def test_an_exception_inside_the_unet_leaves_no_residuals_behind():
    unet, given = tiny_unet(), inputs(SD1_SHAPED)
    plain = unet(**given)
    answers = [Residuals(middle=torch.ones(2, 64, 2, 2)), None]
    hooks = UNetHooks(unet, Adding(lambda _: answers.pop(0)))

    def run_out_of_memory(*_):
        raise MemoryError("no memory")

    breaker = unet.output_blocks[3].register_forward_pre_hook(run_out_of_memory)
    with pytest.raises(MemoryError):
        unet(**given)
    breaker.remove()
    assert not hooks._calls
    assert torch.equal(unet(**given), plain)
    hooks.remove()


@torch.no_grad()
def test_odd_sizes_are_fitted():
    unet, net = tiny_unet(), tiny_controlnet()
    given = inputs(SD1_SHAPED, size=13)
    residuals = net(given["x"], net.encode_hint(torch.rand(1, 3, 104, 104)), given["timesteps"], given["context"])
    hooks = UNetHooks(unet, Adding(Residuals(skip=residuals[:-1], middle=residuals[-1])))
    got = unet(**given)
    hooks.remove()
    assert got.shape == given["x"].shape
    assert not torch.allclose(got, unet(**given), atol=1e-3)


@torch.no_grad()
def test_no_tensor_of_the_control_is_changed():
    unet, given = tiny_unet(), inputs(SD1_SHAPED)
    net = tiny_controlnet()
    residuals = net(given["x"], net.encode_hint(torch.rand(1, 3, 128, 128)), given["timesteps"], given["context"])
    copies = [residual.clone() for residual in residuals]
    hooks = UNetHooks(unet, Adding(Residuals(skip=residuals[:-1], middle=residuals[-1])))
    unet(**given)
    hooks.remove()
    assert all(torch.equal(a, b) for a, b in zip(residuals, copies, strict=True))


@torch.no_grad()
def test_a_raising_hook_stops_the_call_and_comes_off():
    unet, given = tiny_unet(), inputs(SD1_SHAPED)
    before = hook_counts(unet)
    hook = RaisingHook(unet, ValueError("stop"))
    with pytest.raises(ValueError, match="stop"):
        unet(**given)
    hook.remove()
    hook.remove()
    assert hook_counts(unet) == before
    unet(**given)
