"""What stands beside the adherence of `launch.py measure`: floor, ceiling, and likeness to a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lib_controlnet.core.images import Pixels, read_file
from lib_controlnet.engine.metering import rounded, share_followed
from lib_controlnet.training.base import load_autoencoder
from standalone.annotate.options import UsageError

_VAE_STEP = 8
"""The auto-encoder takes sides that are multiples of this."""

Adherence = Callable[[Pixels], "float | None"]


@dataclass(frozen=True)
class Beside:
    """floor, sources: the same pictures without control, and those that the maps are of; a file for all, or by name.

    through: a picture after the auto-encoder; alike: how alike a picture and the prompt are, 0..1.
    """

    floor: Mapping[str, Path] | Path | None = None
    sources: Mapping[str, Path] | Path | None = None
    through: Callable[[Pixels], Pixels] = lambda picture: picture
    alike: Callable[[Pixels], float] | None = None

    def values(self, picture: Path, own: float | None, adherence: Adherence) -> dict[str, float | None]:
        """`floor`, `ceiling`, `followed` and `similarity` of a picture, those that were asked for."""
        found: dict[str, float | None] = {}
        if self.floor is not None:
            found["floor"] = adherence(read_file(_named(self.floor, picture, "floor")))
        if self.sources is not None:
            found["ceiling"] = adherence(self.through(read_file(_named(self.sources, picture, "source"))))
        if len(found) == 2:
            found["followed"] = share_followed(own, found["floor"], found["ceiling"])
        if self.alike is not None:
            found["similarity"] = self.alike(read_file(picture))
        return {name: rounded(value) for name, value in found.items()}


def _named(files: Mapping[str, Path] | Path, picture: Path, what: str) -> Path:
    if isinstance(files, Path):
        return files
    if picture.stem not in files:
        raise UsageError(f'there is no {what} of the name "{picture.stem}"')
    return files[picture.stem]


def through_autoencoder(file: Path, device: str) -> Callable[[Pixels], Pixels]:
    """By the auto-encoder in a checkpoint or a VAE's own file. Raises ModelFileError."""
    autoencoder = load_autoencoder(file).to(device)

    def through(picture: Pixels) -> Pixels:
        height, width = picture.shape[:2]
        sides = [max(_VAE_STEP, round(side / _VAE_STEP) * _VAE_STEP) for side in (width, height)]
        fitted = np.asarray(Image.fromarray(picture[:, :, :3]).resize((sides[0], sides[1])), np.float32)
        latents = autoencoder.encode(torch.as_tensor(fitted / 127.5 - 1).permute(2, 0, 1)[None])
        made = (autoencoder.decode(latents)[0].permute(1, 2, 0).float().cpu().numpy() + 1) * 127.5
        return np.asarray(Image.fromarray(made.round().astype(np.uint8)).resize((width, height)), np.uint8)

    return through


def likeness(folder: Path, prompt: str, device: str) -> Callable[[Pixels], float]:
    """Cosine of picture and prompt by a CLIP in transformers' layout. Raises UsageError; nothing is downloaded."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    try:
        read: Any = CLIPModel.from_pretrained(str(folder), local_files_only=True)
        prepare: Any = CLIPImageProcessor.from_pretrained(str(folder), local_files_only=True)
        tokenizer: Any = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise UsageError(f'"{folder}" is no folder with a CLIP model, its tokenizer and its config: {error}') from error
    model = read.to(device).eval()
    given = tokenizer([prompt], truncation=True, return_tensors="pt").to(device)

    @torch.no_grad()
    def alike(picture: Pixels) -> float:
        pixels = prepare(images=Image.fromarray(picture[:, :, :3]), return_tensors="pt").to(device)
        found = model(**given, **pixels)
        return max(0.0, float((found.image_embeds * found.text_embeds).sum()))

    return alike
