"""The noise schedule against diffusers, weights against their formula, the learning rate against hand-made values."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from lib_controlnet.training.average import MovingAverage
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.noise import NoiseSchedule
from lib_controlnet.training.options import TrainOptions


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
