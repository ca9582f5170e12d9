"""The training set: demo pictures with their latents, encoded once, and prompts and control maps drawn when asked for.

python -m standalone.demo.data --vae FILE --out FILE   encodes the latents.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel

from lib_controlnet.training.dataset import Batch

from .controls import control_map
from .networks import new_autoencoder, posterior
from .prompts import Said, phrase, tokenize
from .shapes import Picture, pictures
from .train_vae import to_tensor

COUNT = 6000
SEED = 1
HELD_OUT_SEED = 777


class DemoData:
    """A `ControlDataset` of demo pictures. `control` is None while only the base model is trained.

    A fifth of the prompts leave something open ("a heart", "a red background"), so short prompts work too.
    """

    def __init__(self, cache: Path, text: CLIPTextModel, control: str | None = None) -> None:
        stored = load_file(str(cache))
        self.scale = float(stored["scale"])
        self.latents = stored["latents"].float() * self.scale
        self.pictures = pictures(len(self.latents), SEED)
        self.text = text.eval().requires_grad_(False)
        self.control = control
        self.empty = self.encode([""])

    def __len__(self) -> int:
        return len(self.latents)

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Tensor:
        """(n, 77, 64)."""
        return self.text(tokenize(prompts)).last_hidden_state

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        rng = random.Random(int(torch.randint(0, 2**31, (1,), generator=generator)))
        chosen = [self.pictures[index] for index in indices.tolist()]
        hints = (
            torch.zeros(0)
            if self.control is None
            else hint_tensor([control_map(self.control, picture, rng) for picture in chosen])
        )
        context = self.encode([training_prompt(picture, rng) for picture in chosen])
        return Batch(self.latents[indices], context, self.empty, hints)


def training_prompt(picture: Picture, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.5:
        return picture.prompt
    said = Said(picture.shape, picture.colour, picture.background)
    if chance > 0.8:
        said = Said(*(word if rng.random() < 0.6 else None for word in (said.shape, said.colour, said.background)))
    return phrase(said, rng)


def hint_tensor(maps: list[np.ndarray]) -> Tensor:
    """(n, 3, h, w) float32 in 0..1."""
    return torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def encode_pictures(vae: Path, out: Path, count: int) -> None:
    torch.set_num_threads(2)
    model = new_autoencoder().eval()
    model.load_state_dict(load_file(str(vae)))
    known = pictures(count, SEED)
    parts = [
        posterior(model, to_tensor([picture.image for picture in known[start : start + 50]])).mean
        for start in range(0, count, 50)
    ]
    latents = torch.cat(parts)
    save_file({"latents": latents.half().contiguous(), "scale": (1 / latents.std()).reshape(1)}, str(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=COUNT)
    options = parser.parse_args()
    encode_pictures(options.vae, options.out, options.count)


if __name__ == "__main__":
    main()
