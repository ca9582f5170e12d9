"""The training loop of a ControlNet.

The U-Net is truly locked: its weights ask for no gradient, and since nothing that enters its encoder asks for one
either,
no graph is built there; the decoder keeps only what the residuals need. A step then costs about as much as one of
fine-tuning the U-Net itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..nets.controlnet import ControlNet
from ..nets.unet import UNetModel
from .average import MovingAverage
from .dataset import Batch, ControlDataset
from .noise import NoiseSchedule
from .options import TrainOptions


@dataclass(frozen=True)
class Progress:
    """After an optimizer step: `step` counts from 1."""

    step: int
    loss: float
    rate: float
    gradient_norm: float


class ControlTrainer:
    """Trains `control` so that the locked `unet`, fed its residuals, predicts the noise of the data set's pictures.

    Chance (order of the pictures, timesteps, noise, dropped prompts) comes from one generator seeded by the options, so
    the same options on the same machine give the same weights.
    """

    def __init__(
        self, unet: UNetModel, control: ControlNet, data: ControlDataset, noise: NoiseSchedule, options: TrainOptions
    ) -> None:
        self.unet = unet.eval().requires_grad_(False)
        self.control = control.train().requires_grad_(True)
        self.data = data
        self.noise = noise
        self.options = options
        self.step = 0
        self.generator = torch.Generator().manual_seed(options.seed)
        self.optimizer = torch.optim.AdamW(
            control.parameters(), lr=options.learning_rate, betas=options.betas, weight_decay=options.weight_decay
        )
        self.average = MovingAverage(control.parameters(), options.average_decay) if options.average_decay else None

    def run(self, watch: Callable[[Progress], None] | None = None) -> None:
        """Train to the last step; `watch` sees every step and may raise to stop."""
        while self.step < self.options.steps:
            progress = self.train_step()
            if watch is not None:
                watch(progress)

    def train_step(self) -> Progress:
        rate = self.options.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self._next_batch())
        loss.backward()
        limit = self.options.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.control.parameters(), float("inf") if limit is None else limit)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        self.step += 1
        return Progress(self.step, loss.item(), rate, norm.item())

    def loss(self, batch: Batch) -> Tensor:
        """Weighted mean squared error of the prediction, a scalar, at random timesteps with random noise."""
        latents = batch.latents
        count = len(latents)
        timesteps = torch.randint(0, self.noise.steps, (count,), generator=self.generator).to(latents.device)
        noise = torch.randn(latents.shape, generator=self.generator).to(latents)
        context = self._drop_prompts(batch)
        noisy = self.noise.add_noise(latents, noise, timesteps)
        residuals = self.control(noisy, self.control.encode_hint(batch.hints), timesteps, context, batch.y)
        answer = controlled_forward(self.unet, noisy, timesteps, context, residuals, batch.y)
        error = (answer - self.noise.target(latents, noise, timesteps)).square().mean((1, 2, 3))
        return (error * self.noise.min_snr_weights(timesteps, self.options.min_snr_gamma)).mean()

    def _next_batch(self) -> Batch:
        indices = torch.randint(0, len(self.data), (self.options.batch_size,), generator=self.generator)
        return self.data.batch(indices, self.generator)

    def _drop_prompts(self, batch: Batch) -> Tensor:
        dropped = torch.rand(len(batch.context), generator=self.generator) < self.options.empty_prompts
        return torch.where(dropped.to(batch.context.device)[:, None, None], batch.empty_context, batch.context)


def controlled_forward(
    unet: UNetModel, x: Tensor, timesteps: Tensor, context: Tensor, residuals: Sequence[Tensor], y: Tensor | None = None
) -> Tensor:
    """The U-Net with `residuals` (one per input block, the middle's last) added to its skips and its middle, as
    `ControlledUnetModel` of lllyasviel/ControlNet: each skip gets its residual when the decoder takes it.

    The encoder runs without a graph. x (B, 4, h, w), timesteps (B,), context (B, N, D).
    """
    with torch.no_grad():
        embedding = unet.embed(timesteps, y)
        h, skips = x, list[Tensor]()
        for block in unet.input_blocks:
            h = block(h, embedding, context)
            skips.append(h)
        h = unet.middle_block(h, embedding, context)
    remaining = list(residuals)
    h = h + remaining.pop()
    for block in unet.output_blocks:
        h = block(torch.cat([h, skips.pop() + remaining.pop()], dim=1), embedding, context)
    return unet.out(h)
