"""What a control must know of the checkpoint in use: its noise schedule, what it predicts, and its VAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .errors import HostError
from .hints import Hint
from .placed import Placed
from .step import Step


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one job.

    alphas_cumprod (T,): the noise schedule. v_prediction: the U-Net predicts the velocity, not the noise. encode: the
    VAE, (n, 3, H, W) in 0..1 to latents (n, 4, H/8, W/8). seed: the job's.
    no_prompt: neither a prompt nor a negative one was given.
    """

    alphas_cumprod: Tensor
    v_prediction: bool
    encode: Callable[[Tensor], Tensor]
    seed: int
    no_prompt: bool = False

    def noised(self, x0: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """x_t of DDPM (Ho et al. 2020, equation 4) for `timesteps` (B,), which are rounded."""
        signal, spread = self._scales(timesteps, x0)
        return signal * x0 + spread * noise

    def picture(self, x: Tensor, timesteps: Tensor, prediction: Tensor) -> Tensor:
        """The latent x0 (B, 4, h, w) float32 that a prediction at `x` means."""
        x, prediction = x.float(), prediction.float()
        signal, spread = self._scales(timesteps, x)
        return signal * x - spread * prediction if self.v_prediction else (x - spread * prediction) / signal

    def prediction(self, x: Tensor, timesteps: Tensor, x0: Tensor) -> Tensor:
        """The prediction that means `x0`: the inverse of `picture`."""
        x = x.float()
        signal, spread = self._scales(timesteps, x)
        return (signal * x - x0) / spread if self.v_prediction else (x - signal * x0) / spread

    def redrawn(self, step: Step, output: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """The prediction (B, 4, h, w) float32 that means `output`'s picture x0 with a change."""
        x, timesteps = step.x[:, :4], step.timesteps
        return self.prediction(x, timesteps, change(self.picture(x, timesteps, output)))

    def latents(self, hints: Sequence[Hint]) -> Tensor:
        """The hints' pictures as latents, one a hint. What is to be painted anew is in them too."""
        pixels = torch.cat([torch.as_tensor(hint.display[:, :, :3].copy()) for hint in hints])
        pixels = pixels.reshape(len(hints), *hints[0].display.shape[:2], 3)
        return self.encode(pixels.permute(0, 3, 1, 2).float() / 255.0)

    def _scales(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a), sqrt(1 - a), each (B, 1, 1, 1) float32; fractional timesteps count as the nearest, as in the peers.

        Hosts that compute in half precision round the timesteps too, 999 in bfloat16 to 1000: the last one is meant.
        """
        schedule = self._schedule.on(like.device, torch.float32)
        places = timesteps.to(like.device).float().round().long().clamp(0, schedule.shape[0] - 1)
        alphas = schedule[places][:, None, None, None]
        return alphas.sqrt(), (1.0 - alphas).sqrt()

    @cached_property
    def _schedule(self) -> Placed:
        return Placed(self.alphas_cumprod)


def no_checkpoint() -> Checkpoint:
    """Where no host is there to ask. Raises HostError."""
    raise HostError("a control asks for the checkpoint's noise schedule or VAE, and there is none")


def of_rows(tensors: Tensor, step: Step) -> Tensor:
    """The tensor of each row's picture, from (n, ...) with one a picture, or one for all."""
    count = tensors.shape[0]
    return tensors if count == 1 else step.kept.of(tensors, [image % count for image in step.images])
