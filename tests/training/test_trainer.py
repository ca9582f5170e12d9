"""The loop on a network of 32 channels: what moves, what must not, and that a seed means a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.controlnet import ControlNet, trainable_copy
from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training.chance import Order, draw, step_generator
from lib_controlnet.training.dataset import Batch
from lib_controlnet.training.kinds.residuals import ResidualControl, controlled_forward
from lib_controlnet.training.noise import NoiseSchedule
from lib_controlnet.training.options import TrainOptions
from lib_controlnet.training.trainer import ControlTrainer

OPTIONS = TrainOptions(steps=8, batch_size=2, learning_rate=1e-3, weight_decay=0.0, seed=3)


class RandomData:
    """Eight fixed random examples; `seen` records which were asked for."""

    def __init__(self) -> None:
        chance = torch.Generator().manual_seed(0)
        self.latents = torch.randn(8, 4, 8, 8, generator=chance)
        self.context = torch.randn(8, 5, 16, generator=chance)
        self.hints = torch.rand(8, 3, 64, 64, generator=chance)
        self.seen: list[list[int]] = []

    @property
    def groups(self) -> list[list[int]]:
        return [list(range(8))]

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        self.seen.append(indices.tolist())
        return Batch(self.latents[indices], self.context[indices], torch.zeros(1, 5, 16), self.hints[indices])


def tiny_unet() -> UNetModel:
    """Random in every weight, also those that start at zero."""
    torch.manual_seed(1)
    unet = UNetModel(
        UNetConfig(
            in_channels=4,
            out_channels=4,
            model_channels=32,
            channel_mult=(1, 1),
            num_res_blocks=1,
            transformer_depth=(0, 1),
            middle_depth=1,
            context_dim=16,
            num_heads=2,
            head_dim=None,
            use_linear=False,
            adm_channels=None,
            groups=8,
        )
    )
    with torch.no_grad():
        for parameter in unet.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return unet


def trainer(options: TrainOptions = OPTIONS) -> ControlTrainer:
    unet = tiny_unet()
    torch.manual_seed(2)
    control = trainable_copy(unet, hint_widths=(4, 4, 4, 8))
    return ControlTrainer(unet, ResidualControl(control), RandomData(), NoiseSchedule.scaled_linear(), options)


def is_zero_conv(key: str) -> bool:
    return key.startswith(("zero_convs.", "middle_block_out."))


def moved(control: ControlNet, before: dict[str, Tensor]) -> set[str]:
    return {key for key, value in control.state_dict().items() if not torch.equal(value, before[key])}


def snapshot(network: torch.nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def test_first_step_moves_exactly_the_zero_convolutions_and_the_second_the_copy() -> None:
    run = trainer()
    start = snapshot(run.control.net)
    run.train_step()
    assert moved(run.control.net, start) == {key for key in start if is_zero_conv(key)}
    first = snapshot(run.control.net)
    run.train_step()
    copied = {key for key in start if key in run.unet.state_dict()}
    assert copied
    assert copied <= moved(run.control.net, first)


def test_locked_unet_is_bit_identical_after_60_steps_and_gets_no_gradient() -> None:
    run = trainer(replace(OPTIONS, steps=60, batch_size=1))
    before = snapshot(run.unet)
    run.run()
    assert run.step == 60
    assert moved_keys(run.unet, before) == set()
    assert all(parameter.grad is None for parameter in run.unet.parameters())


def moved_keys(network: torch.nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}


def test_zero_residuals_are_the_plain_unet() -> None:
    run = trainer()
    x, time = torch.randn(2, 4, 8, 8), torch.tensor([5, 900])
    context, hints = torch.randn(2, 5, 16), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        residuals = run.control.net(x, run.control.encode(hints), time, context)
        assert len(residuals) == len(run.unet.input_blocks) + 1
        assert not any(residual.any() for residual in residuals)
        assert torch.equal(controlled_forward(run.unet, x, time, context, residuals), run.unet(x, time, context))


def test_each_residual_enters_its_own_skip() -> None:
    """The last of the residuals is the middle's; adding to one only must equal a U-Net whose block output is raised."""
    unet = tiny_unet().eval()
    x, time, context = torch.randn(1, 4, 8, 8), torch.tensor([300]), torch.randn(1, 5, 16)
    widths = unet.config.input_channels
    sides = [8, 8, 4, 4]
    assert len(widths) == len(sides)
    with torch.no_grad():
        for index in range(len(widths)):
            residuals = [torch.zeros(1, c, s, s) for c, s in zip(widths, sides, strict=True)] + [
                torch.zeros(1, 32, 4, 4)
            ]
            residuals[index] = torch.randn(residuals[index].shape)
            got = controlled_forward(unet, x, time, context, residuals)
            assert torch.allclose(got, _with_raised_skip(unet, x, time, context, index, residuals[index]), atol=1e-6)


def _with_raised_skip(unet: UNetModel, x: Tensor, time: Tensor, context: Tensor, index: int, change: Tensor) -> Tensor:
    """The decoder block that consumes skip `index` gets it changed, by a hook on the network's own forward."""
    consumer = unet.output_blocks[len(unet.output_blocks) - 1 - index]

    def raise_skip(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        joined = inputs[0].clone()
        joined[:, -change.shape[1] :] += change
        return (joined, *inputs[1:])

    handle = consumer.register_forward_pre_hook(raise_skip)
    try:
        return unet(x, time, context)
    finally:
        handle.remove()


def test_same_seed_same_weights_other_seed_others() -> None:
    weights = []
    for seed in (3, 3, 4):
        run = trainer(replace(OPTIONS, seed=seed))
        run.run()
        weights.append(snapshot(run.control.net))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert any(not torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_loss_falls_when_the_hint_tells_the_answer() -> None:
    """Eight examples learnt by heart: with nothing but the timestep's noise to guess, the loss must drop."""
    run = trainer(replace(OPTIONS, steps=40, learning_rate=3e-3, batch_size=4, empty_prompts=0.0))
    losses: list[float] = []
    run.run(lambda progress: losses.append(progress.loss))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (1.0, 400, 400), (0.5, 160, 240)])
def test_prompts_are_dropped(share: float, least: int, most: int) -> None:
    dropped = draw(step_generator(0, 0, 0), (400, 4, 1, 1), 1000, share).dropped
    assert least <= int(dropped.sum()) <= most


def test_half_of_the_prompts_are_dropped_by_default() -> None:
    assert TrainOptions(steps=1).empty_prompts == 0.5


def test_dropped_prompts_are_the_empty_one() -> None:
    """With every prompt dropped, the prompts of the data make no difference."""
    losses = []
    for value in (0.0, 1.0):
        run = trainer(replace(OPTIONS, empty_prompts=1.0))
        run.data.context += value  # type: ignore[attr-defined]
        losses.append(run.train_step().loss)
    assert losses[0] == losses[1]


def test_accumulated_gradients_are_the_mean_of_the_passes() -> None:
    """Against each pass computed alone, from the same draws."""
    run = trainer(replace(OPTIONS, accumulation=2, clip_norm=0.0))
    run.train_step()
    gradients = [weight.grad for weight in run.trained]
    parts: list[list[Tensor]] = []
    for part in range(2):
        alone = trainer(replace(OPTIONS, accumulation=2))
        alone.loss(*alone._part(part)).backward()
        parts.append([torch.zeros_like(w) if w.grad is None else w.grad for w in alone.trained])
    assert any(gradient is not None and gradient.any() for gradient in gradients)
    for gradient, one, two in zip(gradients, *parts, strict=True):
        assert gradient is not None
        assert torch.allclose(gradient, (one + two) / 2, atol=1e-7)


def test_a_batch_is_drawn_from_every_example_once_an_epoch() -> None:
    order = Order([[0, 1, 2], [3, 4, 5, 6, 7]], 2, seed=1)
    epochs = [[order.indices(5 * epoch + n).tolist() for n in range(5)] for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(index for batch in epoch for index in batch) == list(range(8))
        assert all(len(batch) <= 2 and len({index < 3 for index in batch}) == 1 for batch in epoch)
    assert epochs[0] != epochs[1]
    assert [order.indices(n).tolist() for n in range(5)] == epochs[0]


def test_average_lags_behind_and_is_put_back() -> None:
    run = trainer(replace(OPTIONS, average_decay=0.9))
    run.run()
    own = snapshot(run.control.net)
    assert run.average is not None
    with run.average.applied():
        averaged = snapshot(run.control.net)
    assert moved_keys(run.control.net, own) == set()
    assert any(not torch.equal(averaged[key], own[key]) for key in own if is_zero_conv(key))
