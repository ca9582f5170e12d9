"""What a preprocessor may do to a sampling beside giving a map: its promise is kept here, by hooks or afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core.hints import Hint
from ..core.modes import ControlMode
from ..core.step import Pass, Step
from .placed import Placed


@dataclass(frozen=True)
class Sampling:
    """What an effect must know of the checkpoint in use.

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


@dataclass(frozen=True)
class Setup:
    """One unit's effect in one pass.

    hints: the maps, one or one a picture; tensors: embeddings by name where there are no maps. params: the
    preprocessor's sliders. sdxl: the checkpoint is one of SDXL's.
    """

    preprocessor: str
    options: Mapping[str, object]
    """What its data sheet says of how it acts (`effect_options`)."""
    hints: Sequence[Hint]
    tensors: Sequence[Mapping[str, Tensor]]
    params: tuple[float, ...]
    weight: float
    mode: ControlMode
    pass_: Pass
    sdxl: bool
    blur: int
    """Pixels over which an inpainted region fades into its surroundings."""
    sampling: Sampling

    @property
    def share(self) -> float:
        """The weight as the part of the effect that is mixed in, 0..1."""
        return min(max(self.weight, 0.0), 1.0)

    def redrawn(self, step: Step, output: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """A prediction whose picture x0 is changed, as far as `share` says, in the prediction's dtype."""
        x, timesteps = step.x[:, :4], step.timesteps
        wanted = self.sampling.prediction(x, timesteps, change(self.sampling.picture(x, timesteps, output)))
        return torch.lerp(output.float(), wanted, self.share).to(output.dtype)

    def latents(self) -> Tensor:
        """The hints' pictures as latents, one a hint. What is to be painted anew is in them too."""
        pixels = torch.cat([torch.from_numpy(hint.display[:, :, :3].copy()) for hint in self.hints])
        pixels = pixels.reshape(len(self.hints), *self.hints[0].display.shape[:2], 3)
        return self.sampling.encode(pixels.permute(0, 3, 1, 2).float() / 255.0)


class Effect:
    """An effect of one unit in one pass; what a kind of effect does not override, it does not do.

    Made before the sampling begins, when the VAE may run; owned by the session and dropped with it.
    """

    ignores_prompt = False
    """The U-Net gets zeros for the text of every prompt."""

    def vector(self) -> Tensor | None:
        """(1, n): what the first n channels of `y` are for cond rows, 0 for the others; several effects add up."""
        return None

    def attach(self, unet: nn.Module) -> Sequence[RemovableHandle]:
        """Hooks on layers of `unet`; whoever asked for them removes them."""
        del unet
        return ()

    def noise(self, noise: Tensor) -> Tensor:
        """The noise (B, 4, h, w) of variance 1 from which the pass starts."""
        return noise

    def prepare(self, unet: nn.Module, step: Step) -> None:
        """A U-Net call is about to be computed. No effect may act on what `unet` computes meanwhile."""

    def before(self) -> None:
        """All effects have prepared; the call itself begins."""

    def after(self, step: Step, output: Tensor) -> Tensor:
        """The U-Net's prediction (B, 4, h, w) of a step, changed."""
        del step
        return output

    def finished(self, picture: Tensor, place: int) -> Tensor:
        """The decoded picture (3, H, W) in 0..1 of place `place` in its batch, changed."""
        del place
        return picture


def of_rows(tensors: Tensor, step: Step) -> Tensor:
    """The tensor of each row's picture, from (n, ...) with one a picture, or one for all."""
    count = tensors.shape[0]
    return tensors if count == 1 else step.kept.of(tensors, [image % count for image in step.images])
