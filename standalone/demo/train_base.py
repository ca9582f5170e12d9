"""Train the demo model's U-Net:

python -m standalone.demo.train_base --cache FILE --text FILE --out FILE --steps 2500
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training.average import MovingAverage
from lib_controlnet.training.dataset import Batch
from lib_controlnet.training.noise import NoiseSchedule

from .budget import Budget
from .data import DemoData
from .networks import keep_levels, new_text_encoder, new_unet

BATCH = 24
RATE = 1.5e-3
EMPTY_PROMPTS = 0.1
MIN_SNR_GAMMA = 5.0
CELL_WEIGHT = 0.25
NOISE_OFFSET = 0.5


def start(seed: int) -> UNetModel:
    torch.manual_seed(seed)
    unet = new_unet()
    keep_levels(unet, "input_blocks.0.0", 2.0)
    keep_levels(unet, f"output_blocks.{len(unet.output_blocks) - 1}.0.out_layers.3", 2.0)
    return unet


@dataclass(frozen=True)
class Objective:
    """What is asked of the U-Net at a step.

    A flat picture's colour is the mean of its latent. White noise hardly touches means, so the colour shows through at
    nearly every timestep and the prompt is not needed to guess it; yet sampling starts with no colour. Noise with a
    random level per channel (`offset`) makes the U-Net read the prompt. With `plain`: white noise and min-SNR only.
    """

    noise: NoiseSchedule
    plain: bool

    def loss(self, unet: UNetModel, batch: Batch, generator: torch.Generator) -> Tensor:
        count = len(batch.latents)
        timesteps = torch.randint(0, self.noise.steps, (count,), generator=generator)
        epsilon = self._draw(batch.latents.shape, generator)
        empty = torch.rand(count, generator=generator) < EMPTY_PROMPTS
        context = torch.where(empty[:, None, None], batch.empty_context, batch.context)
        answer = unet(self.noise.add_noise(batch.latents, epsilon, timesteps), timesteps, context)
        return (self._error(answer - epsilon) * self._weights(timesteps)).mean()

    def _draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        white = torch.randn(shape, generator=generator)
        return white if self.plain else white + NOISE_OFFSET * torch.randn(*shape[:2], 1, 1, generator=generator)

    def _error(self, difference: Tensor) -> Tensor:
        """(B,) squared error, plus that of the 4x4 means scaled so that white noise would count as much."""
        fine = difference.square().mean((1, 2, 3))
        return fine if self.plain else fine + CELL_WEIGHT * 16 * F.avg_pool2d(difference, 4).square().mean((1, 2, 3))

    def _weights(self, timesteps: Tensor) -> Tensor:
        """(B,) min-SNR weights times sqrt(1 + 1 / SNR), half-way from the error of the noise to that of the picture:
        where only the prompt tells the picture, the picture is hardly a part of the noise's error."""
        weights = self.noise.min_snr_weights(timesteps, MIN_SNR_GAMMA)
        return weights if self.plain else weights * self.noise.alphas_cumprod[timesteps].rsqrt()


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    text = new_text_encoder()
    text.load_state_dict(load_file(str(options.text)))
    data, unet = DemoData(options.cache, text), start(options.seed)
    objective = Objective(NoiseSchedule.scaled_linear(), options.plain)
    if options.resume is not None:
        unet.load_state_dict(load_file(str(options.resume)))
    generator = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    average = MovingAverage(unet.parameters(), 0.998)
    budget, step, losses, curve = Budget.of(options), 0, list[float](), []
    while (share := budget.share(step)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = (
                options.rate * min(1.0, (step + 1) / 100) * (1.0 if share < 0.6 else max(0.03, 2.5 * (1 - share)))
            )
        batch = data.batch(torch.randint(0, len(data), (BATCH,), generator=generator), generator)
        loss = objective.loss(unet, batch, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        average.update()
        step += 1
        losses.append(loss.item())
        if step % 50 == 0:
            curve.append((step, budget.seconds, round(sum(losses[-50:]) / 50, 5)))
            print(f"step {curve[-1][0]}, {curve[-1][1]} s, loss {curve[-1][2]:.5f}", flush=True)
        if step % 200 == 0:
            _save(unet, average, options.out, curve)
    _save(unet, average, options.out, curve)


def _save(unet: UNetModel, average: MovingAverage, out: Path, curve: list[tuple[int, int, float]]) -> None:
    partial = out.with_suffix(".part")
    with average.applied():
        save_file({key: value.contiguous() for key, value in unet.state_dict().items()}, str(partial))
    partial.replace(out)
    out.with_suffix(".json").write_text(json.dumps(curve))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path)
    Budget.add_options(parser, minutes=21)
    parser.add_argument("--plain", action="store_true", help="white noise and the plain min-SNR error")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
