"""The noise schedule against diffusers, weights against their formula, the learning rate against hand-made values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from lib_controlnet.training.average import MovingAverage
from lib_controlnet.training.chance import draw, step_generator
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.noise import NoiseSchedule
from lib_controlnet.training.options import TrainOptions
from lib_controlnet.training.sampling import Condition, sample

from .test_trainer import OPTIONS, trainer


@pytest.mark.parametrize("prediction", ["epsilon", "velocity"])
def test_agrees_with_diffusers(prediction: str) -> None:
    schedule = NoiseSchedule.scaled_linear(prediction=prediction)  # type: ignore[arg-type]
    peer = DDPMScheduler(1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    latents, noise = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8)
    timesteps = torch.tensor([0, 1, 250, 600, 999])
    assert torch.allclose(
        schedule.add_noise(latents, noise, timesteps), peer.add_noise(latents, noise, timesteps), atol=1e-5
    )
    wanted = noise if prediction == "epsilon" else peer.get_velocity(latents, noise, timesteps)
    assert torch.allclose(schedule.target(latents, noise, timesteps), wanted, atol=1e-5)


def test_min_snr_weights() -> None:
    schedule = NoiseSchedule(torch.tensor([10 / 11, 0.5]))  # SNR 10 and 1
    times = torch.tensor([0, 1])
    assert schedule.min_snr_weights(times, 5.0).tolist() == pytest.approx([0.5, 1.0])
    assert schedule.min_snr_weights(times, 0).tolist() == [1.0, 1.0]
    velocity = NoiseSchedule(schedule.alphas_cumprod, "velocity")
    assert velocity.min_snr_weights(times, 5.0).tolist() == pytest.approx([5 / 11, 0.5])


def test_rate_rises_holds_and_falls() -> None:
    options = TrainOptions(steps=100, learning_rate=2.0, warm_up=10, schedule="linear", decay_from=0.6, final_rate=0.1)
    assert [options.rate(step) for step in (0, 4, 9, 50, 60, 80, 99)] == pytest.approx([0.2, 1, 2, 2, 2, 1, 0.2])
    cosine = TrainOptions(steps=100, learning_rate=2.0, schedule="cosine")
    assert [cosine.rate(step) for step in (0, 25, 50, 75)] == pytest.approx([2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5])
    assert [TrainOptions(steps=9).rate(step) for step in (0, 8)] == [1e-5, 1e-5]


def test_a_schedule_that_ends_in_noise_is_diffusers() -> None:
    plain = NoiseSchedule.scaled_linear(prediction="velocity")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
    ours = plain.ending_in_noise().alphas_cumprod
    assert torch.allclose(ours.double(), theirs, atol=1e-6)
    assert (ours[-1].item(), ours[0].item()) == (0.0, pytest.approx(plain.alphas_cumprod[0].item()))
    assert plain.ending_in_noise().min_snr_weights(torch.tensor([999]), 5.0).isfinite().all()
    with pytest.raises(TrainingError, match=r"train\.zero_terminal_snr.*predicts the noise"):
        NoiseSchedule.scaled_linear().ending_in_noise()


@pytest.mark.parametrize("ends", [False, True])
def test_samples_are_diffusers_ddim(ends: bool) -> None:
    """Also from noise alone, where its timesteps begin at the last one."""
    noise = NoiseSchedule.scaled_linear(prediction="velocity")
    noise = noise.ending_in_noise() if ends else noise
    peer = DDIMScheduler(
        1000, 0.00085, 0.012, "scaled_linear", clip_sample=False, set_alpha_to_one=False,
        prediction_type="v_prediction", rescale_betas_zero_snr=ends,
        timestep_spacing="trailing" if ends else "leading", steps_offset=0 if ends else 1,
    )  # fmt: skip
    peer.set_timesteps(10)

    def answer(x: torch.Tensor, times: torch.Tensor, *_: object) -> torch.Tensor:
        return 0.3 * x.roll(1, -1) + times[:, None, None, None] / 1000

    x = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(7))[None]
    for time in peer.timesteps:
        x = peer.step(answer(x, time[None]), int(time), x).prev_sample
    condition = Condition(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))
    ours = sample(answer, condition, noise, (4, 4), seed=7, steps=10, cfg=1.0)  # type: ignore[arg-type]
    assert torch.allclose(ours, x, atol=1e-4)


def test_offset_noise_is_one_number_a_channel() -> None:
    """And changes nothing else that is drawn."""
    shape = (300, 4, 2, 2)
    plain, moved = (draw(step_generator(0, 0, 0), shape, 1000, 0.5, offset_noise=o) for o in (0.0, 0.1))
    added = moved.noise - plain.noise
    assert (added - added[:, :, :1, :1]).abs().max() < 1e-6
    assert added.std() == pytest.approx(0.1, rel=0.1)
    assert torch.equal(plain.timesteps, moved.timesteps)
    assert torch.equal(plain.dropped, moved.dropped)


def test_cubic_timesteps_are_mostly_noisy_ones() -> None:
    """1 - u^3: half of them lie above 875, a fifth below 500."""
    times = draw(step_generator(0, 0, 0), (4000, 1, 1, 1), 1000, 0.5, cubic=True).timesteps
    assert 0 <= int(times.min()) <= int(times.max()) <= 999
    assert float((times > 875).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((times < 500).float().mean()) == pytest.approx(1 - 0.5 ** (1 / 3), abs=0.03)


def test_modules_have_rates_of_their_own() -> None:
    rates = {"zero_convs.*": 1e-2, "input_hint_block.0.*": 0.0}
    options = replace(OPTIONS, rates=rates, learning_rate=1e-4, warm_up=0, clip_norm=0.0)
    run = trainer(options)
    assert {group["full_rate"] for group in run.optimizer.param_groups} == {1e-4, 1e-2, 0.0}
    assert sum(len(group["params"]) for group in run.optimizer.param_groups) == len(run.trained)
    before = {key: value.clone() for key, value in run.control.net.state_dict().items()}
    run.train_step()
    run.train_step()
    moved = {key: (value - before[key]).abs().max().item() for key, value in run.control.net.state_dict().items()}
    assert moved["input_hint_block.0.weight"] == 0.0
    assert moved["zero_convs.0.0.weight"] > 20 * moved["middle_block_out.0.weight"] > 0


@pytest.mark.parametrize("rates", [{"zeroconvs.*": 1e-3}, {"*": float("nan")}, {"*": -1.0}])
def test_rates_of_nothing_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=r"train\.rates"):
        trainer(replace(OPTIONS, rates=rates))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 0}, {"empty_prompts": 1.5}, {"decay_from": -0.1}])
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=next(iter(wrong))):
        TrainOptions(**{"steps": 10, **wrong})  # type: ignore[arg-type]


def test_average_of_a_constant_pull() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    average = MovingAverage([parameter], 0.5)
    with torch.no_grad():
        parameter.fill_(1.0)
    average.update()  # decay (1 + 1) / (10 + 1)
    assert average.values[0].item() == pytest.approx(9 / 11)
    with average.applied():
        assert parameter.item() == pytest.approx(9 / 11)
    assert parameter.item() == 1.0
