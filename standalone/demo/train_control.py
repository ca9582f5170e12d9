"""Train a ControlNet of the demo model with the project's own trainer:

python -m standalone.demo.train_control --type canny --cache FILE --steps 2000 --out
models/demo/controlnet/demo_canny.safetensors
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file

from lib_controlnet.nets.controlnet import trainable_copy
from lib_controlnet.training.export import export_control, file_sha256
from lib_controlnet.training.initial import scale_hint_encoder
from lib_controlnet.training.noise import NoiseSchedule
from lib_controlnet.training.options import TrainOptions
from lib_controlnet.training.trainer import ControlTrainer, Progress

from . import checkpoint
from .controls import TYPES
from .data import DemoData

HINT_WIDTHS: Final = (16, 16, 32, 64)
PREPROCESSORS: Final = {"canny": "canny", "scribble": "scribble_xdog", "seg": "none"}


def recipe(steps: int, rate: float, seed: int) -> TrainOptions:
    return TrainOptions(
        steps=steps,
        batch_size=16,
        learning_rate=rate,
        warm_up=100,
        decay_from=0.6,
        final_rate=0.02,
        betas=(0.9, 0.99),
        weight_decay=1e-3,
        empty_prompts=0.5,
        min_snr_gamma=5.0,
        average_decay=0.995,
        seed=seed,
    )


class Log:
    """Prints and keeps the mean loss of every 20 steps, and saves the weights now and then."""

    def __init__(
        self, trainer: ControlTrainer, out: Path, metadata: dict[str, str], curve: Path, save_every: int
    ) -> None:
        self.trainer, self.out, self.metadata, self.curve_file, self.save_every = (
            trainer,
            out,
            metadata,
            curve,
            save_every,
        )
        self.started, self.losses, self.curve = time.monotonic(), list[float](), list[tuple[int, int, float]]()

    def __call__(self, progress: Progress) -> None:
        self.losses.append(progress.loss)
        if progress.step % 20 == 0:
            self.curve.append(
                (progress.step, round(time.monotonic() - self.started), round(sum(self.losses[-20:]) / 20, 5))
            )
            step, seconds, loss = self.curve[-1]
            print(f"step {step}, {seconds} s, loss {loss:.5f}, gradient {progress.gradient_norm:.3f}", flush=True)
        if progress.step % self.save_every == 0 or progress.step == self.trainer.options.steps:
            self.save()

    def save(self) -> None:
        assert self.trainer.average is not None
        with self.trainer.average.applied():
            export_control(self.trainer.control, self.out, self.metadata)
        self.curve_file.parent.mkdir(parents=True, exist_ok=True)
        self.curve_file.write_text(json.dumps(self.curve), encoding="utf-8")


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    base = checkpoint.load(options.base)
    control = trainable_copy(base.unet, hint_widths=HINT_WIDTHS)
    if options.start is None:
        scale_hint_encoder(control, torch.Generator().manual_seed(options.seed))
    else:
        control.load_state_dict({key: value.float() for key, value in load_file(str(options.start)).items()})
    settings = recipe(options.steps, options.rate, options.seed)
    data = DemoData(options.cache, base.text, options.type)
    trainer = ControlTrainer(base.unet, control, data, NoiseSchedule.scaled_linear(), settings)
    metadata = {
        "modelspec.title": f"demo {options.type}",
        "modelspec.license": "Apache-2.0",
        "controlnet.type": options.type,
        "controlnet.preprocessor": PREPROCESSORS[options.type],
        "controlnet.base": options.base.name,
        "controlnet.base_sha256": file_sha256(options.base),
        "controlnet.recipe": json.dumps(asdict(settings)),
        "controlnet.start": "base" if options.start is None else options.start.name,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    trainer.run(Log(trainer, options.out, metadata, options.curve, options.save_every))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--type", choices=TYPES, required=True)
    parser.add_argument("--base", type=Path, default=checkpoint.CHECKPOINT)
    parser.add_argument("--cache", type=Path, required=True, help="made by standalone.demo.data")
    parser.add_argument("--start", type=Path, help="a ControlNet of the same base to go on from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--curve", type=Path, required=True, help="JSON file for (step, seconds, loss)")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=7e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=200)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
