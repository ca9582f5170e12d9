"""The consistency reward: its maps beside OpenCV's, where it counts, and that following it draws the lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib_controlnet.measure.lines import bright, edge_score
from lib_controlnet.training.base import Autoencoder
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.noise import NoiseSchedule
from lib_controlnet.training.planning import _Sizes
from lib_controlnet.training.reward import REWARDS, Reward, blurred, brightest, lines_apart, soft_canny

from .test_trainer import OPTIONS, trainer
from .tiny import config, draw, session


def as_tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255


def test_soft_lines_lie_where_opencv_finds_them() -> None:
    for number in range(5):
        picture, edges = draw(number)
        made = soft_canny(as_tensor(picture), ())
        found = np.repeat((made[0, 0].numpy() > 0.5)[..., None] * np.uint8(255), 3, axis=2)
        assert edge_score(bright(found), bright(edges)).f1 > 0.95
        own, other = as_tensor(edges), as_tensor(draw(number + 5)[1])
        assert lines_apart(made, own).item() < 0.1
        assert lines_apart(made, other).item() > lines_apart(made, own).item() + 0.3


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_blur_and_light_are_opencvs(sigma: float) -> None:
    picture, _ = draw(3)
    theirs = as_tensor(cv2.GaussianBlur(picture, (0, 0), sigma))
    assert (blurred(as_tensor(picture), (sigma,)) - theirs).abs().max() < 0.02
    value = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., 2:].repeat(3, axis=2)
    assert (brightest(as_tensor(picture), (1.0,)) - as_tensor(value)).abs().max() < 0.005


def test_following_the_reward_draws_the_lines() -> None:
    """From another picture, by gradient descent on its pixels."""
    wanted, pixels = as_tensor(draw(1)[1]), as_tensor(draw(2)[0]).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([pixels], lr=0.02)
    first = lines_apart(soft_canny(pixels.clamp(0, 1), ()), wanted).item()
    for _ in range(80):
        optimizer.zero_grad()
        loss = lines_apart(soft_canny(pixels.clamp(0, 1), ()), wanted).sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first


class Decoder(nn.Module):
    """A latent's first three channels, eight times as large."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def decode(self, latents: Tensor) -> Any:
        return SimpleNamespace(sample=nn.functional.interpolate(latents[:, :3] * self.scale, scale_factor=8))


@pytest.mark.parametrize("prediction", ["epsilon", "velocity"])
def test_only_late_timesteps_count_and_their_picture_is_the_one_predicted(prediction: Any) -> None:
    noise = NoiseSchedule.scaled_linear(prediction=prediction)
    latents, drawn = torch.rand(4, 4, 8, 8) * 2 - 1, torch.randn(4, 4, 8, 8)
    times = torch.tensor([5, 199, 200, 900])
    noisy, answer = noise.add_noise(latents, drawn, times), noise.target(latents, drawn, times)
    assert torch.allclose(noise.picture(noisy, answer, times), latents, atol=1e-3)
    reward = Reward(Autoencoder(Decoder(), 0.5), REWARDS["tile_resample"], (), weight=3.0, below=200)
    assert reward.rows(times) == [0, 1]
    hints = torch.rand(4, 3, 64, 64)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    pictures = (nn.functional.interpolate(latents[:, :3] / 0.5, scale_factor=8) + 1) / 2
    apart = (pictures.clamp(0, 1) - hints).square().mean((1, 2, 3))
    wanted = 3.0 * (0.1 * apart[0] + 0.2 * apart[1])
    assert reward(noise, noisy, answer, times, hints, weights).item() == pytest.approx(wanted.item(), rel=1e-3)
    assert reward(noise, noisy, answer, times + 200, hints, weights).item() == 0.0


def test_the_reward_reaches_the_control() -> None:
    """With a rate on nothing but it, zero convolutions move by it."""
    moved = []
    for below in (1, 1000):
        run = trainer(replace(OPTIONS, steps=1))
        run._reward = Reward(Autoencoder(Decoder(), 1.0), REWARDS["tile_resample"], (), weight=100.0, below=below)
        run._backward()
        moved.append(sum(float(w.grad.abs().sum()) for w in run.trained if w.grad is not None))
    assert moved[1] > 1.2 * moved[0] > 0


def test_a_training_with_a_reward(checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    losses = []
    for name, reward in (("with", 1.0), ("without", 0.0)):
        options = {"steps": 1, "batch_size": 2, "reward": reward, "reward_below": 1000}
        losses.append(session(config(checkpoint, pairs, tmp_path / name, train=options)).run().loss)
    assert losses[0] > losses[1] + 0.2
    wanted = config(checkpoint, pairs, tmp_path / "out", train={"reward": 1.0})
    sizes, without = _Sizes(wanted, shared=False), replace(wanted.train, reward=0.0)
    assert sizes._step(wanted.train)[1] > sizes._step(without)[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"preprocessor": "hed"}}, r"train\.reward_map.*hed.*canny"),
        ({"control": {"kind": "ctrlora"}}, r"train\.reward.*latents"),
    ],
)
def test_what_has_no_gradient_is_refused(changes: dict[str, Any], words: str, checkpoint: Path, tmp_path: Path) -> None:
    settings = config(checkpoint, tmp_path, tmp_path / "out", train={"reward": 1.0}, **changes)
    with pytest.raises(TrainingError, match=words):
        session(settings).run()
