"""Pictures and prompts encoded once, kept on the disk, and read from there in every epoch.

Shards of 256 examples are written whole or not at all, so a killed run goes on with the next one. The folder's name
and each shard's digest say what they were made from: another checkpoint, size or picture means another shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..nets.blocks import timestep_embedding
from .base import Base
from .config import DataOptions
from .dataset import Batch
from .errors import TrainingError
from .pictures import Pixels, as_tensor, fitted, read_picture, training_size
from .readers import Example
from .state import write_whole

_SHARD = 256
_AT_ONCE = 8
_TIME_DIM = 256

Preprocess = Callable[[str, Pixels, int, Sequence[float]], Pixels]
"""(name, picture (h, w, 3) RGB uint8, resolution, settings) -> map of the same size."""
Tell = Callable[[str, int, int], None]
"""(what is done, done, all)."""


@dataclass(frozen=True)
class _Place:
    """Where an example's latent is, its size in pixels, and what SDXL is told about sizes: original and crop."""

    shard: int
    size: tuple[int, int]
    original: tuple[int, int]


class EncodedData:
    """A `ControlDataset` over a cache: examples with latents, prompts and control maps."""

    def __init__(
        self, base: Base, options: DataOptions, folder: Path, device: torch.device, preprocess: Preprocess
    ) -> None:
        self._base, self._options, self._device, self._preprocess = base, options, device, preprocess
        stat = base.path.stat()
        made_from = f"{base.path.name}:{stat.st_size}:{stat.st_mtime_ns}:{options.resolution}:{options.aspect}"
        self._folder = folder / hashlib.sha256(made_from.encode()).hexdigest()[:16]
        self.examples: list[Example] = []
        self._places: list[_Place] = []
        self._texts: dict[str, tuple[Path, str]] = {}
        self._open: dict[Path, Any] = {}

    @property
    def groups(self) -> list[list[int]]:
        """The examples by size."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, place in enumerate(self._places):
            by_size.setdefault(place.size, []).append(index)
        return list(by_size.values())

    def encode(self, examples: Sequence[Example], tell: Tell) -> None:
        """Make what is missing in the cache. Raises TrainingError for a picture that cannot be read."""
        self.examples = list(examples)
        self._places = []
        for number, start in enumerate(range(0, len(examples), _SHARD)):
            part = examples[start : start + _SHARD]
            for example in part:
                original = example.size()
                size = training_size(original, self._options.resolution, self._options.aspect)
                self._places.append(_Place(number, size, original))
            self._latent_shard(number, part, self._places[start:])
            tell("pictures", start + len(part), len(examples))
        captions = sorted({caption for example in examples for caption in example.captions} | {""})
        for number, start in enumerate(range(0, len(captions), _SHARD)):
            self._text_shard(number, captions[start : start + _SHARD])
            tell("captions", min(start + _SHARD, len(captions)), len(captions))
        for number, example in enumerate(examples if any(e.hint is None for e in examples) else ()):
            self._made_hint(example)
            tell("control maps", number + 1, len(examples))

    def release(self) -> None:
        """The encoders go back to the processor; what is encoded is on the disk."""
        self._base.autoencoder.to("cpu")
        if "text" in vars(self._base):  # else it was not even read
            self._base.text.to("cpu")

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """See ControlDataset."""
        chosen = indices.tolist()
        captions = [self._caption(self.examples[index], generator) for index in chosen]
        context, pooled = self._contexts(captions)
        empty, empty_pooled = self._contexts([""])
        sizes = [self._places[index] for index in chosen]
        y = empty_y = None
        if pooled is not None and empty_pooled is not None:
            y = size_condition(pooled, sizes)
            empty_y = size_condition(empty_pooled.expand(len(chosen), -1), sizes)
        return Batch(
            latents=torch.stack([self._latent(index) for index in chosen]),
            context=context,
            empty_context=empty,
            hints=as_tensor([self.hint(index) for index in chosen]),
            y=y,
            empty_y=empty_y,
        )

    def hint(self, index: int) -> Pixels:
        """The control map (h, w, 3) of an example at the size it is trained at."""
        example = self.examples[index]
        pixels = self._made_hint(example) if example.hint is None else example.hint()
        return fitted(pixels, self._places[index].size)

    def picture(self, index: int) -> Pixels:
        """The true picture (h, w, 3) at the size it is trained at."""
        return fitted(self.examples[index].picture(), self._places[index].size)

    def _caption(self, example: Example, generator: torch.Generator) -> str:
        if len(example.captions) == 1:
            return example.captions[0]
        return example.captions[int(torch.randint(0, len(example.captions), (1,), generator=generator))]

    def _latent(self, index: int) -> Tensor:
        place = self._places[index]
        return self._shard(self._folder / f"latents-{place.shard:05d}.safetensors", str(index % _SHARD))

    def _contexts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        places = [self._texts[caption] for caption in captions]
        context = torch.stack([self._shard(path, key) for path, key in places])
        if self._base.unet.config.adm_channels is None:
            return context, None
        return context, torch.stack([self._shard(path, f"{key}.pooled") for path, key in places])

    def _shard(self, path: Path, key: str) -> Tensor:
        if path not in self._open:
            self._open[path] = safe_open(str(path), "pt")
        return self._open[path].get_tensor(key).float()

    def _latent_shard(self, number: int, examples: Sequence[Example], places: Sequence[_Place]) -> None:
        path = self._folder / f"latents-{number:05d}.safetensors"
        digest = _digest([f"{e.name}|{e.stamp}|{p.size}" for e, p in zip(examples, places, strict=False)])
        if _holds(path, digest):
            return
        self._base.autoencoder.to(self._device)
        latents: dict[str, Tensor] = {}
        for run in _runs_of_one_size([place.size for place in places[: len(examples)]]):
            pictures = as_tensor([fitted(examples[i].picture(), places[i].size) for i in run]) * 2 - 1
            made = self._base.autoencoder.encode(pictures.to(self._device)).cpu().half()
            latents |= {str(index): latent.contiguous() for index, latent in zip(run, made.split(1), strict=True)}
        _write(path, {key: value[0] for key, value in latents.items()}, digest)

    def _text_shard(self, number: int, captions: Sequence[str]) -> None:
        path = self._folder / f"texts-{number:05d}.safetensors"
        digest = _digest(captions)
        self._texts |= {caption: (path, str(index)) for index, caption in enumerate(captions)}
        if _holds(path, digest):
            return
        self._base.text.to(self._device)
        made: dict[str, Tensor] = {}
        for start in range(0, len(captions), _AT_ONCE):
            encoded = self._base.text.encode(captions[start : start + _AT_ONCE])
            for offset, context in enumerate(encoded.context):
                made[str(start + offset)] = context.cpu().half().clone()
                if encoded.pooled is not None:
                    made[f"{start + offset}.pooled"] = encoded.pooled[offset].cpu().half().clone()
        _write(path, made, digest)

    def _made_hint(self, example: Example) -> Pixels:
        """The map a preprocessor makes of the picture, kept as a file."""
        options = self._options
        made_from = f"{example.stamp}|{options.preprocessor}|{options.preprocessor_params}"
        path = self._folder / "maps" / f"{_digest([made_from])[:24]}.png"
        if path.is_file():
            return read_picture(path, path.name)
        picture = example.picture()
        pixels = self._preprocess(options.preprocessor, picture, options.resolution, options.preprocessor_params)
        write_whole(path, lambda partial: Image.fromarray(pixels).save(partial, "PNG"))
        return pixels


def size_condition(pooled: Tensor, places: Sequence[_Place]) -> Tensor:
    """SDXL's `y` (B, P + 6 x 256): pooled text, then sinusoids of original size, crop and target size, each as
    (height, width) (Podell et al. 2023, arXiv:2307.01952, section 2.2)."""
    rows = [(*p.original[::-1], *_crop(p), *p.size[::-1]) for p in places]
    numbers = torch.tensor(rows, dtype=torch.float32)
    embedded = timestep_embedding(numbers.flatten(), _TIME_DIM).reshape(len(rows), -1)
    return torch.cat([pooled, embedded], dim=1)


def _crop(place: _Place) -> tuple[int, int]:
    """(top, left) of what `fitted` keeps, in pixels of the resized picture."""
    scale = max(place.size[0] / place.original[0], place.size[1] / place.original[1])
    across, down = round(place.original[0] * scale), round(place.original[1] * scale)
    return max(down - place.size[1], 0) // 2, max(across - place.size[0], 0) // 2


def _runs_of_one_size(sizes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Indices in portions that can be encoded at once."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        by_size.setdefault(size, []).append(index)
    for group in by_size.values():
        yield from (group[start : start + _AT_ONCE] for start in range(0, len(group), _AT_ONCE))


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def _holds(path: Path, digest: str) -> bool:
    """Whether the shard is there and made from the same things."""
    if not path.is_file():
        return False
    try:
        with safe_open(str(path), "pt") as stream:
            return (stream.metadata() or {}).get("digest") == digest
    except (OSError, SafetensorError):
        return False  # it is made again


def _write(path: Path, tensors: dict[str, Tensor], digest: str) -> None:
    bad = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise TrainingError(
            f"{path.name}: encoding gave numbers that are none ({len(bad)} of {len(tensors)})",
            field="data",
            remedy="use another VAE (base.vae); some overflow in half precision",
        )
    write_whole(path, lambda partial: save_file(tensors, str(partial), metadata={"digest": digest}))
