"""Residuals in the argument of a U-Net that takes them there, as those of the Forge family do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_controlnet.core.residuals import Residuals
from lib_controlnet.engine.argument import ArgumentHooks
from lib_controlnet.engine.injection import UNetHooks
from lib_controlnet.engine.sites import LdmSites

from .tiny import SD1_SHAPED, SDXL_SHAPED, Adding, hook_counts, inputs, tiny_controlnet, tiny_unet


def taking(unet: nn.Module, layered: bool = False, forgets: bool = False) -> nn.Module:
    """`unet` with the forward of these hosts: `control` is taken from the lists' ends, and added in place.

    layered: the layers in a block are called one by one (reForge, Classic). forgets: the middle's is not added.
    """

    def run(block: Any, h: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        if not layered:
            return block(h, emb, context)
        for layer in block:
            kind = type(layer).__name__
            h = layer(h, emb) if kind == "ResBlock" else layer(h, context) if "Transformer" in kind else layer(h)
        return h

    def added(h: Tensor, control: dict[str, list[Tensor | None]] | None, name: str) -> Tensor:
        if control is not None and control.get(name) and not (forgets and name == "middle"):
            own = control[name].pop()
            if own is not None:
                assert own.dtype == h.dtype
                h += own
        return h

    def forward(
        x: Tensor, timesteps: Tensor, context: Any = None, y: Any = None, control: Any = None, **_: Any
    ) -> Tensor:
        model: Any = unet
        emb, h, skips = model.embed(timesteps, y), x, []
        for block in model.input_blocks:
            h = added(run(block, h, emb, context), control, "input")
            skips.append(h)
        h = added(run(model.middle_block, h, emb, context), control, "middle")
        for block in model.output_blocks:
            skip = added(skips.pop(), control, "output")
            h = nn.functional.interpolate(h, skip.shape[-2:], mode="nearest") if h.shape[-2:] != skip.shape[-2:] else h
            h = run(block, torch.cat([h, skip], dim=1), emb, context)
        return model.out(h)

    unet.forward = forward  # type: ignore[method-assign]
    return unet


def residuals_for(config: Any, given: dict[str, Any], size: tuple[int, int]) -> Residuals:
    net = tiny_controlnet(config)
    features = net.encode_hint(torch.rand(1, 3, size[0] * 8, size[1] * 8))
    made = net(given["x"], features, given["timesteps"], given["context"], given["y"])
    return Residuals(skip=made[:-1], middle=made[-1], encoder=(None, None, 0.5 * torch.randn_like(made[2])))


@pytest.mark.parametrize("layered", [False, True], ids=["Forge and Neo", "reForge and Classic"])
@pytest.mark.parametrize("config", [SD1_SHAPED, SDXL_SHAPED], ids=["sd1", "sdxl"])
@pytest.mark.parametrize("size", [(16, 16), (13, 18)], ids=str)
@torch.no_grad()
def test_it_is_what_hooks_on_blocks_add(config: Any, size: tuple[int, int], layered: bool) -> None:
    given: Any = inputs(config)
    given["x"] = torch.randn(2, config.in_channels, *size)
    residuals = residuals_for(config, given, size)
    plain = tiny_unet(config)(**given)
    with_blocks = tiny_unet(config)
    UNetHooks(with_blocks, Adding(residuals))
    expected = with_blocks(**given)
    assert (expected - plain).abs().max() > 0.01

    unet, control = taking(tiny_unet(config), layered), Adding(residuals)
    before = hook_counts(unet)
    hooks = ArgumentHooks(unet, control)
    rest = {name: value for name, value in given.items() if name not in ("x", "timesteps")}
    got = unet(given["x"], given["timesteps"], **rest, control=None, transformer_options={})
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert control.left == []
    assert control.calls_done == 1
    hooks.remove()
    assert hook_counts(unet) == before
    assert torch.equal(unet(**given), plain)


@torch.no_grad()
def test_the_hosts_own_control_is_added_too_and_stays_its_own() -> None:
    given: Any = inputs(SD1_SHAPED)
    ours, unet = residuals_for(SD1_SHAPED, given, (16, 16)), taking(tiny_unet())
    assert ours.middle is not None
    assert ours.skip[-1] is not None
    middle, deepest = torch.randn_like(ours.middle), torch.randn_like(ours.skip[-1])
    theirs = {"middle": [middle], "output": [deepest]}
    kept = middle.clone(), deepest.clone()
    both = Residuals(skip=(*ours.skip[:-1], ours.skip[-1] + deepest), middle=ours.middle + middle, encoder=ours.encoder)
    expected_unet = tiny_unet()
    UNetHooks(expected_unet, Adding(both))
    ArgumentHooks(unet, Adding(ours))
    got = unet(**given, control={name: list(values) for name, values in theirs.items()})
    torch.testing.assert_close(got, expected_unet(**given), rtol=1e-5, atol=1e-5)
    assert torch.equal(middle, kept[0])
    assert torch.equal(deepest, kept[1])


@torch.no_grad()
def test_what_the_unet_does_not_take_is_told() -> None:
    given: Any = inputs(SD1_SHAPED)
    unet, control = taking(tiny_unet(), forgets=True), Adding(residuals_for(SD1_SHAPED, given, (16, 16)))
    ArgumentHooks(unet, control)
    unet(**given)
    assert control.left == ["middle, 1 of them"]


@torch.no_grad()
def test_blocks_whose_layers_are_called_one_by_one_are_places_too() -> None:
    """A change before and after a block acts alike, whichever way the host calls it."""
    given: Any = inputs(SD1_SHAPED)
    names = ("input_blocks.1", "middle_block", "output_blocks.2")
    outputs = []
    for layered in (False, True):
        unet = taking(tiny_unet(), layered)
        sites = LdmSites(unet, blocks_are_called=not layered)
        for name in names:
            sites.keep(sites.entrance(name).register_forward_pre_hook(lambda _m, args: (args[0] * 1.25, *args[1:])))
            sites.keep(sites.exit(name).register_forward_hook(lambda _m, _args, output: output * 0.5))
        outputs.append(unet(**given))
        sites.remove()
    plain = tiny_unet()(**given)
    assert torch.equal(*outputs)
    assert (outputs[0] - plain).abs().max() > 0.01
