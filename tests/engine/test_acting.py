"""Control that was asked for and reaches no prediction is an error that names the unit; what is chosen is said."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lib_controlnet.core.errors import HostError, ModelFileError
from lib_controlnet.core.modes import ControlMode
from lib_controlnet.core.residuals import Residuals
from lib_controlnet.core.step import Pass
from lib_controlnet.engine.injection import UNetHooks

from .test_session import FakeGeneration, began, folder, picture, step, unit  # noqa: F401 (folder is a fixture)
from .tiny import SD1_SHAPED, SDXL_SHAPED, Adding, inputs, tiny_controlnet, tiny_unet

UNET = nn.Module()
"""No effect asks for it."""


def called(session, *steps):
    """The session through U-Net calls that take everything."""
    for one in steps:
        now, _ = session.begin_call(one)
        session.end_call(now.x, [])
        session.done()
    return session.end(len(steps))


# consumption


def iterate_layers(unet):
    """reForge's and Classic's way: a block's layers are run one by one, the block itself is never called."""

    class Bare(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

    def forward(x, timesteps=None, context=None, y=None):
        emb, skips, h = unet.embed(timesteps, y), [], x
        for block in unet.input_blocks:
            h = type(block).forward(block, h, emb, context)
            skips.append(h)
        h = type(unet.middle_block).forward(unet.middle_block, h, emb, context)
        for block in unet.output_blocks:
            h = type(block).forward(block, torch.cat([h, skips.pop()], 1), emb, context)
        return unet.out(h)

    unet.forward = forward


def answer_for(unet):
    """Another extension gives a prediction of its own."""
    unet.forward = lambda x, *_, **__: torch.zeros_like(x)


@pytest.mark.parametrize("config", [SD1_SHAPED, SDXL_SHAPED], ids=["sd1", "sdxl"])
@pytest.mark.parametrize("replace", [iterate_layers, answer_for])
@torch.no_grad()
def test_a_forward_that_passes_the_blocks_by_is_found_out(config, replace):
    unet, net, given = tiny_unet(config), tiny_controlnet(config), inputs(config)
    residuals = net(given["x"], net.encode_hint(torch.rand(1, 3, 128, 128)), *(given[k] for k in list(given)[1:]))
    replace(unet)
    control = Adding(Residuals(skip=residuals[:-1], middle=residuals[-1]))
    hooks = UNetHooks(unet, control)
    unet(**given)
    hooks.remove()
    assert len(control.left) == len(residuals)


@torch.no_grad()
def test_each_single_place_that_is_passed_by_is_named():
    unet, net, given = tiny_unet(), tiny_controlnet(), inputs(SD1_SHAPED)
    residuals = net(given["x"], net.encode_hint(torch.rand(1, 3, 128, 128)), given["timesteps"], given["context"])
    count = len(unet.output_blocks)
    places = {f"skip {count - 1 - i}": block for i, block in enumerate(unet.output_blocks)}
    places["middle 0"] = unet.middle_block
    for place, block in places.items():
        control = Adding(Residuals(skip=residuals[:-1], middle=residuals[-1]))
        hooks = UNetHooks(unet, control)
        saved = block._forward_hooks.copy(), block._forward_pre_hooks.copy()
        block._forward_hooks.clear(), block._forward_pre_hooks.clear()  # as if its forward were called directly
        unet(**given)
        assert control.left == [place]
        block._forward_hooks.update(saved[0]), block._forward_pre_hooks.update(saved[1])
        control.left.clear()
        unet(**given)
        assert control.left == []
        hooks.remove()


@torch.no_grad()
def test_residuals_for_blocks_that_the_unet_has_not_are_left():
    unet, given = tiny_unet(), inputs(SD1_SHAPED)
    control = Adding(Residuals(encoder=(None,) * 40 + (torch.ones(1, 1, 1, 1),)))
    hooks = UNetHooks(unet, control)
    unet(**given)
    hooks.remove()
    assert control.left == ["encoder 40"]


@torch.no_grad()
def test_a_call_within_a_call_leaves_the_outer_ones_control_alone():
    """Another extension's hook calls the U-Net once more, as those with a reference of their own do."""
    unet, net, given = tiny_unet(), tiny_controlnet(), inputs(SD1_SHAPED)
    residuals = net(given["x"], net.encode_hint(torch.rand(1, 3, 128, 128)), given["timesteps"], given["context"])
    control = Adding(Residuals(skip=residuals[:-1], middle=residuals[-1]))
    hooks = UNetHooks(unet, control)
    expected = unet(**given)
    depth = []

    def again(*_):
        if not depth:
            depth.append(1)
            assert torch.equal(unet(**given), expected)

    handle = unet.input_blocks[3].register_forward_pre_hook(again)
    assert torch.equal(unet(**given), expected)
    assert not control.left
    handle.remove()
    hooks.remove()


def test_what_was_not_taken_names_the_unit(folder):  # noqa: F811
    session = began(folder, unit(2))
    now, _ = session.begin_call(step())
    with pytest.raises(HostError, match=r"ControlNet unit 2, model: .*skip 3") as error:
        session.end_call(now.x, ["middle 0", "skip 3"])
    assert "What to do" in str(error.value)


# acting


def test_a_sampling_without_a_unet_call_is_an_error(folder):  # noqa: F811
    with pytest.raises(HostError, match=r"unit 0: the sampler never called the U-Net"):
        began(folder, unit()).end(0)
    with pytest.raises(HostError, match=r"unit 0: the U-Net was never called.*7 denoiser steps"):
        began(folder, unit()).end(7)


def test_a_closed_session_is_an_error(folder):  # noqa: F811
    session = began(folder, unit())
    session.close()
    with pytest.raises(HostError, match="taken away"):
        session.begin_call(step())
    with pytest.raises(HostError, match="taken away"):
        session.end(3)


def test_calls_that_never_end_are_an_error(folder):  # noqa: F811
    session = began(folder, unit(1))
    session.begin_call(step())
    with pytest.raises(HostError, match="unit 1: the unit's control did not reach"):
        session.end(1)


def test_rows_of_the_negative_prompt_alone_are_an_error_for_units_that_have_no_say_there(folder):  # noqa: F811
    session = began(folder, unit(control_mode=ControlMode.control))
    with pytest.raises(HostError, match="unit 0, control_mode: "):
        called(session, step(is_cond=(False, False)))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"weight": 0.0}, "its weight is 0"),
        ({"layer_weights": (0.0,) * 7}, "all its layer weights are 0"),
        ({"region_mask": np.zeros((64, 64), np.uint8)}, "its region mask is wholly black"),
        ({"guidance_start": 0.9}, "none of the 2 steps falls into its range, 0.9 to 1"),
        ({"guidance_start": 0.1, "guidance_end": 0.4}, "none of the 2 steps falls into its range, 0.1 to 0.4"),
    ],
)
def test_what_the_user_chose_is_said_and_is_no_error(folder, fields, reason):  # noqa: F811
    idle = called(began(folder, unit(), unit(3, **fields)), step(progress=0.0), step(progress=0.5))
    assert [(one.unit, one.text) for one in idle] == [(3, f"it did nothing: {reason}")]


def test_a_unit_of_the_other_pass_is_neither_an_error_nor_worth_a_word(folder):  # noqa: F811
    from lib_controlnet.core.modes import HiResOption

    resting = unit(1, hr_option=HiResOption.high)
    session = began(folder, unit(), resting, generation=FakeGeneration(hires=True), pass_=Pass.base)
    assert called(session, step()) == []


def test_a_unit_without_a_picture_of_the_batch_is_said(folder):  # noqa: F811
    session = began(folder, unit(), unit(1), generation=FakeGeneration(unit_per_image=True))
    idle = called(session, step())
    assert [(one.unit, one.text) for one in idle] == [(1, "it did nothing: no picture of the batch is its own")]


# sizes


@pytest.mark.parametrize("size", [(4, 8), (8, 4), (4, 4), (16, 16), (7, 8)])
def test_a_latent_of_another_size_is_an_error(folder, size):  # noqa: F811
    session = began(folder, unit(1))
    one = step()
    smaller = torch.randn(2, 4, *size)
    with pytest.raises(HostError, match=rf"unit 1, image: .*{size[1]}x{size[0]} with a hint for 8x8"):
        session.begin_call(SimpleNamespace(**{**vars(one), "x": smaller, "batch": 2}))


# residuals


def broken(folder, tmp_path, change):  # noqa: F811
    weights = load_file(folder / "first.safetensors")
    change(weights)
    save_file(weights, tmp_path / "first.safetensors")
    return began(tmp_path, unit(2))


def zero_outputs(weights):
    for name in weights:
        if "controlnet_down_blocks" in name or "controlnet_mid_block" in name:
            weights[name] = torch.zeros_like(weights[name])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["controlnet_mid_block.weight", "conv_in.weight", "controlnet_down_blocks.0.bias"])
def test_residuals_that_are_no_numbers_are_an_error_at_the_first_step(folder, tmp_path, name, value):  # noqa: F811
    def change(weights):
        weights[name].view(-1)[0] = value

    with pytest.raises(ModelFileError, match=r"unit 2, model: .*not numbers"):
        broken(folder, tmp_path, change).begin_call(step())


def test_residuals_that_are_all_zero_are_an_error(folder, tmp_path):  # noqa: F811
    with pytest.raises(ModelFileError, match=r"unit 2, model: .*nothing but zeros"):
        broken(folder, tmp_path, zero_outputs).begin_call(step())


def test_a_wholly_black_map_is_said(folder):  # noqa: F811
    session = began(folder, unit(image=np.zeros((64, 64, 3), np.uint8)), unit(1, image=picture(3)))
    assert [note for note in session.runs[0].unit.notes if "wholly black" in note]
    assert not session.runs[1].unit.notes
