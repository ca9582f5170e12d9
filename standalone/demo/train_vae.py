"""Train the demo model's auto-encoder: python -m standalone.demo.train_vae --out FILE --minutes 12

The latent is guided: its first three channels are drawn to the 8x8 mean colour, the fourth is free for detail. Such
latents are smooth, so a small U-Net can learn them.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file, save_file

from .budget import Budget
from .networks import decoded, new_autoencoder, posterior
from .shapes import COLOURS, SHAPES, Image, compose, pictures, place, unit_outline

# (share of the time at which it ends, crop side, batch): small crops first, the same work per step throughout.
STAGES = ((0.45, 32, 16), (0.8, 64, 4), (1.01, 128, 1))
LATENT_NOISE = 0.1
DECODER_NOISE = 0.06


def training_images(count: int, seed: int) -> list[Image]:
    """Four in five from the demo world; the rest in any colours, any size and place, so the decoder is not a
    palette."""
    known = [picture.image for picture in pictures(count * 4 // 5, seed)]
    rng = random.Random(seed + 1)
    free: list[Image] = []
    while len(known) + len(free) < count:
        points = place(
            unit_outline(rng.choice(SHAPES)),
            (rng.uniform(10, 118), rng.uniform(10, 118)),
            rng.uniform(8, 90),
            rng.uniform(0, 6.28),
        )
        pair = [
            tuple(rng.randrange(256) for _ in range(3)) if rng.random() < 0.7 else rng.choice(list(COLOURS.values()))
            for _ in range(2)
        ]
        free.append(compose(points, pair[0], pair[1])[0])
    return known + free


def to_tensor(images: list[Image]) -> torch.Tensor:
    """(n, 3, h, w) float32 in -1..1."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def random_crops(images: list[Image], rng: np.random.Generator, side: int, count: int) -> torch.Tensor:
    """Crops that mostly hold an edge: a flat crop teaches next to nothing."""
    crops: list[Image] = []
    while len(crops) < count:
        image = images[rng.integers(len(images))]
        y, x = rng.integers(0, 128 - side + 1, 2)
        crop = image[y : y + side, x : x + side]
        if np.ptp(crop, axis=(0, 1)).max() == 0 and rng.random() < 0.85:
            continue
        crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return to_tensor(crops)


def reconstruction_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    difference = made - wanted
    gradients = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return difference.abs().mean() + difference.square().mean() + gradients


def step_loss(model: AutoencoderKL, batch: torch.Tensor) -> torch.Tensor:
    encoded = posterior(model, batch)
    mean = encoded.mean
    made = decoded(model, mean + LATENT_NOISE * torch.randn_like(mean))
    guide = (mean[:, :3] - 1.5 * F.avg_pool2d(batch, 8)).abs().mean()
    return (
        reconstruction_loss(made, batch)
        + 0.5 * guide
        + 2e-3 * mean[:, 3:].square().mean()
        + 0.01 * (encoded.logvar + 4.6).square().mean()
    )


@torch.no_grad()
def psnr(model: AutoencoderKL, batch: torch.Tensor) -> float:
    made = decoded(model, posterior(model, batch).mean).clamp(-1, 1)
    return float(-10 * ((made - batch) / 2).square().mean((1, 2, 3)).log10().mean())


def decoder_loss(model: AutoencoderKL, batch: torch.Tensor) -> torch.Tensor:
    """With the encoder as it is, so that latents already encoded, and what was trained on them, stay valid."""
    with torch.no_grad():
        mean = posterior(model, batch).mean
    return reconstruction_loss(decoded(model, mean + DECODER_NOISE * torch.randn_like(mean)), batch)


def train(options: argparse.Namespace) -> None:
    out, seed, rate = options.out, options.seed, options.rate
    torch.set_num_threads(options.threads)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = new_autoencoder()
    stages, loss_of, trained = STAGES, step_loss, list(model.parameters())
    if options.decoder_of is not None:
        model.load_state_dict(load_file(str(options.decoder_of)))
        stages, loss_of = STAGES[1:], decoder_loss
        trained = [value for key, value in model.named_parameters() if key.startswith(("decoder.", "post_quant_conv."))]
    images, held_out = training_images(4000, seed + 1), to_tensor([picture.image for picture in pictures(16, 999)])
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    budget, step, curve = Budget.of(options), 0, list[tuple[int, int, float, float]]()
    while (share := budget.share(step)) < 1:
        _, side, count = next(stage for stage in stages if share < stage[0])
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1.0 if share < 0.5 else max(0.02, 2 * (1 - share)))
        loss = loss_of(model, random_crops(images, rng, side, count))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            curve.append((step, budget.seconds, round(loss.item(), 4), round(psnr(model, held_out), 2)))
            at, seconds, last, quality = curve[-1]
            print(f"step {at}, {seconds} s, loss {last:.4f}, {quality:.2f} dB", flush=True)
            _save(model, out, curve)
    print(f"end: step {step}, {psnr(model, held_out):.2f} dB")
    _save(model, out, curve)


def _save(model: AutoencoderKL, out: Path, curve: list[tuple[int, int, float, float]]) -> None:
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, str(out))
    out.with_suffix(".json").write_text(json.dumps(curve))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    Budget.add_options(parser, minutes=11)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--decoder-of", type=Path, help="go on with the decoder of this file only")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
