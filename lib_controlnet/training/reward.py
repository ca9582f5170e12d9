"""The consistency reward: how far the map of what the network would draw is from the map that it was given.

Li et al., "ControlNet++: Improving Conditional Controls with Efficient Consistency Feedback", 2024 (arXiv:2404.07987):
at the last timesteps one step leads to a picture that is worth looking at; it is decoded, its map is made by a
differentiable preprocessor, and the difference from the condition is part of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Autoencoder
from .config import TrainConfig
from .errors import TrainingError
from .kinds import kind_named
from .noise import NoiseSchedule

_TOLERANCE, _LEAST = 2, 1e-6
_SOFT = 0.25
"""Of the way between canny's thresholds: how sharply a gradient counts as a line."""


@dataclass(frozen=True)
class RewardMap:
    """`make`: pictures (n, 3, H, W) in 0..1 and the preprocessor's settings -> maps (n, 3, H, W) in 0..1, with a
    gradient. `differ`: maps and conditions -> (n,), 0 where they agree."""

    make: Callable[[Tensor, Sequence[float]], Tensor]
    differ: Callable[[Tensor, Tensor], Tensor]


def soft_canny(pictures: Tensor, settings: Sequence[float]) -> Tensor:
    """Where OpenCV's gradient (Sobel, |x| + |y|, the steepest channel) lies above the middle of the thresholds: canny
    without thinning, and with a soft threshold in place of the hysteresis."""
    low, high = settings or (100.0, 200.0)
    kernel = pictures.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    planes = F.pad(pictures.flatten(0, 1)[:, None] * 255, (1, 1, 1, 1), mode="replicate")
    across, down = (F.conv2d(planes, part[None, None]) for part in (kernel, kernel.T))
    steepest = (across.abs() + down.abs()).reshape(pictures.shape).amax(dim=1, keepdim=True)
    width = max(_SOFT * (high - low), 1.0)
    return torch.sigmoid((steepest - (low + high) / 2) / width).expand(-1, 3, -1, -1)


def lines_apart(made: Tensor, wanted: Tensor) -> Tensor:
    """1 minus the F1 of lines within 2 pixels, of soft ones: what is made counts by its strength."""
    made, wanted = made[:, :1], wanted.mean(dim=1, keepdim=True)
    side = 2 * _TOLERANCE + 1
    near_wanted, near_made = (F.max_pool2d(part, side, 1, _TOLERANCE) for part in (wanted, made))
    precision = (made * near_wanted).sum((1, 2, 3)) / (made.sum((1, 2, 3)) + _LEAST)
    recall = (wanted * near_made).sum((1, 2, 3)) / (wanted.sum((1, 2, 3)) + _LEAST)
    return 1 - 2 * precision * recall / (precision + recall + _LEAST)


def blurred(pictures: Tensor, settings: Sequence[float]) -> Tensor:
    """OpenCV's Gaussian blur with mirrored borders."""
    sigma = settings[0] if settings else 9.0
    reach = min(max(1, round(4 * sigma)), min(pictures.shape[2:]) - 1)
    places = torch.arange(-reach, reach + 1, dtype=pictures.dtype, device=pictures.device)
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[None, None, None]
    planes = F.pad(pictures.flatten(0, 1)[:, None], (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(planes, kernel), kernel.transpose(2, 3)).reshape(pictures.shape)


def brightest(pictures: Tensor, settings: Sequence[float]) -> Tensor:
    """V of HSV, with gamma."""
    light = pictures.amax(dim=1, keepdim=True).clamp(min=_LEAST)
    return (light ** (settings[0] if settings else 1.0)).expand(-1, 3, -1, -1)


def colours_apart(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared difference."""
    return (made - wanted).square().mean((1, 2, 3))


REWARDS = {
    "canny": RewardMap(soft_canny, lines_apart),
    "blur_gaussian": RewardMap(blurred, colours_apart),
    "recolor_intensity": RewardMap(brightest, colours_apart),
    "tile_resample": RewardMap(lambda pictures, _: pictures, colours_apart),
}
"""Preprocessors of which there is a differentiable form."""


class Reward:
    """Of the timesteps below `below`, `weight` times the difference."""

    def __init__(
        self, autoencoder: Autoencoder, made: RewardMap, settings: Sequence[float], weight: float, below: int
    ) -> None:
        self._autoencoder, self._map, self._settings = autoencoder, made, settings
        self._weight, self._below = weight, below

    @property
    def network(self) -> nn.Module:
        """What decodes."""
        return self._autoencoder.model

    def rows(self, timesteps: Tensor) -> list[int]:
        """Those that count."""
        return [row for row, time in enumerate(timesteps.tolist()) if time < self._below]

    def __call__(
        self, noise: NoiseSchedule, noisy: Tensor, answer: Tensor, timesteps: Tensor, hints: Tensor, weights: Tensor
    ) -> Tensor:
        """A scalar for the loss. noisy, answer (B, 4, h, w), timesteps (B,), hints (B, 3, 8h, 8w) in 0..1; weights
        (B,): what each row counts for."""
        rows = self.rows(timesteps)
        if not rows:
            return answer.new_zeros(())
        clean = noise.picture(noisy[rows], answer[rows], timesteps[rows])
        if next(self.network.parameters()).device != answer.device:  # it was elsewhere for looks
            self._autoencoder.to(answer.device)
        pictures = (self._autoencoder.decode_with_graph(clean).float() + 1) / 2
        apart = self._map.differ(self._map.make(pictures.clamp(0, 1), self._settings), hints[rows].float())
        return self._weight * (apart * weights[rows]).sum()


def check_reward(config: TrainConfig) -> None:
    """Raises TrainingError where a reward is asked for that cannot be given."""
    if not config.train.reward:
        return
    name = _name(config)
    if name not in REWARDS:
        raise TrainingError("of this preprocessor there is no form that a gradient goes through",
                            field="train.reward_map", found=f'"{name}"',
                            remedy=f"there are: {', '.join(REWARDS)}; or set train.reward = 0")  # fmt: skip
    if kind_named(config.control.kind).latent_hints:
        raise TrainingError("a kind that reads maps as latents has no map to compare with", field="train.reward",
                            found=config.control.kind, remedy="set it to 0, or choose another kind")  # fmt: skip


def reward_for(config: TrainConfig, autoencoder: Autoencoder) -> Reward | None:
    """What the configuration asks for."""
    train, name = config.train, _name(config)
    if not train.reward:
        return None
    settings = config.data.preprocessor_params if name == config.data.preprocessor else ()
    return Reward(autoencoder, REWARDS[name], settings, train.reward, train.reward_below)


def _name(config: TrainConfig) -> str:
    own = config.data.preprocessor
    return config.train.reward_map or (own if own != "none" else config.samples.preprocessor)
