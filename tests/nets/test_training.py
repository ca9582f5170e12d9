"""What the trainer needs: a copy that starts without effect and learns, and layers that are initialised."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet, trainable_copy
from lib_controlnet.nets.operations import Operations
from lib_controlnet.nets.unet import UNetModel

from .ldm_oracle import example, randomise
from .sizes import DEMO, SD1


def _residuals(net: ControlNet, config: UNetConfig) -> tuple[Tensor, ...]:
    hint = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    inputs = example(config)
    return net(inputs["x"], net.encode_hint(hint), *list(inputs.values())[1:])


@pytest.fixture
def unet() -> UNetModel:
    unet = UNetModel(DEMO)
    randomise(unet, seed=4)
    return unet


def test_the_copy_has_the_unets_encoder_and_no_effect_at_first(unet: UNetModel) -> None:
    net = trainable_copy(unet, hint_widths=(8, 16, 32, 64))
    base = unet.state_dict()
    for key, value in net.state_dict().items():
        if key.startswith(("zero_convs", "middle_block_out", "input_hint_block.14")):
            assert not value.any(), key
        elif not key.startswith("input_hint_block"):
            assert torch.equal(value, base[key]), key
            assert value.data_ptr() != base[key].data_ptr(), key
        elif key.endswith("weight"):
            assert value.std() > 0.01, key
    assert all(not residual.any() for residual in _residuals(net, DEMO))


def test_the_copy_learns(unet: UNetModel) -> None:
    """The first step moves the zero convolutions only; from the second on every weight has a gradient."""
    net = trainable_copy(unet, hint_widths=(8, 16, 32, 64)).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        sum((residual - 1).square().mean() for residual in _residuals(net, DEMO)).backward()
        optimizer.step()
    without = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []
    assert all(residual.abs().max() > 0 for residual in _residuals(net, DEMO))


def test_the_copy_keeps_the_dtype(unet: UNetModel) -> None:
    net = trainable_copy(unet.to(torch.bfloat16))
    assert {weight.dtype for weight in net.parameters()} == {torch.bfloat16}


def test_checkpointing_changes_no_gradient(unet: UNetModel) -> None:
    gradients: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        net = trainable_copy(unet, hint_widths=(8, 16, 32, 64)).train()
        torch.nn.init.ones_(net.zero_convs[1][0].weight)
        net.use_checkpointing(checkpointing)
        sum(residual.square().mean() for residual in _residuals(net, DEMO)).backward()
        gradients.append({name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    assert gradients[0]["input_blocks.0.0.weight"].any()


def test_gradients_reach_the_inputs(unet: UNetModel) -> None:
    """The locked U-Net passes them on to the residuals that are added to its skips."""
    inputs = example(DEMO)
    inputs["x"].requires_grad_()
    unet(**inputs).square().mean().backward()
    assert inputs["x"].grad is not None
    assert inputs["x"].grad.any()


def test_a_new_unet_starts_as_ldm_starts_it() -> None:
    """Last layers of residual branches 0, so that depth does no harm; everything else random."""
    torch.manual_seed(0)
    for key, value in UNetModel(SD1).state_dict().items():
        is_last = ".out_layers.3." in key or ".proj_out." in key or key.startswith("out.2.")
        if is_last:
            assert not value.any(), key
        elif value.ndim > 1:
            assert value.std() > 0.005, key


def test_without_initialisation_no_random_number_is_drawn() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ControlNet(ControlNetConfig(SD1), Operations(initialise=False))
    with torch.device("meta"):
        ControlNet(ControlNetConfig(SD1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("storage", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_stored_in_one_dtype_computed_in_another(storage: torch.dtype) -> None:
    """As the network whose weights were cast to the compute dtype beforehand.

    On some processors a matrix product depends in its last bits on where its operands lie in memory; a wrong dtype
    anywhere would show as 1e-3 or more.
    """
    reference = ControlNet(ControlNetConfig(SD1))
    randomise(reference, seed=6)
    reference.to(storage).to(torch.float32)
    small = ControlNet(ControlNetConfig(SD1), Operations(compute_dtype=torch.float32))
    small.load_state_dict({key: value.to(storage) for key, value in reference.state_dict().items()}, assign=True)
    assert {weight.dtype for weight in small.parameters()} == {storage}
    assert small.dtype == torch.float32
    for got, wanted in zip(_residuals(small, SD1), _residuals(reference, SD1), strict=True):
        assert float((got - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_full(dtype: torch.dtype) -> None:
    net = ControlNet(ControlNetConfig(SD1))
    randomise(net, seed=6)
    full = _residuals(net, SD1)
    half = _residuals(net.to(dtype), SD1)
    assert {residual.dtype for residual in half} == {dtype}
    for a, b in zip(half, full, strict=True):
        assert (a.float() - b).abs().max() <= 0.05 * b.abs().max()
