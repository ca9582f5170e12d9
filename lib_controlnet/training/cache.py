"""Pictures and prompts encoded once, kept on the disk, and read from there in every epoch.

Each latent, prompt and map is found by a digest of all it was made from: the content of the picture, its size in the
training, the weights that encoded it. So a moved, cut or extended data set costs only what is new, and another VAE
never meets the latents of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor

from ..nets.blocks import timestep_embedding
from .base import Base
from .config import DataOptions
from .dataset import Batch
from .errors import Stopped, TrainingError
from .examples import Example
from .pictures import Pixels, as_tensor, fitted, read_picture, training_size
from .room import Room, in_portions
from .state import write_whole
from .store import Store, digest

_TEXTS_AT_ONCE, _TOKENS = 8, 77
_TIME_DIM = 256
Made = TypeVar("Made")

Preprocess = Callable[[str, Pixels, int, Sequence[float]], Pixels]
"""(name, picture (h, w, 3) RGB uint8, resolution, settings) -> map of the same size."""


class Onlooker(Protocol):
    """Who waits for a long piece of work. `stopping`: whether it is to end now; it goes on later where it was."""

    def stage(self, what: str, done: int, total: int) -> None: ...
    def stopping(self) -> bool: ...


@dataclass(frozen=True)
class _Place:
    """An example's size in pixels as it is trained, and what SDXL is told about sizes: original and crop."""

    size: tuple[int, int]
    original: tuple[int, int]


class EncodedData:
    """A `ControlDataset` over a cache: examples with latents, prompts and control maps.

    `process` of `processes`: each encodes its share. `latent_hints`: maps are given as the latents that the
    auto-encoder makes of their pixels in 0..1, as CtrLoRA's authors give it them.
    """

    def __init__(
        self, base: Base, options: DataOptions, folder: Path, room: Room, preprocess: Preprocess,
        examples: Sequence[Example], process: int = 0, processes: int = 1, latent_hints: bool = False,
    ) -> None:  # fmt: skip
        self._base, self._options, self._folder, self._room = base, options, folder, room
        self._preprocess, self._process, self._processes = preprocess, process, processes
        self._latent_hints, self._pass_over = latent_hints, False
        self.examples = list(examples)
        self._places: list[_Place] = []
        for example in self.examples:
            original = example.size()
            self._places.append(_Place(training_size(original, options.resolution, options.aspect), original))
        self._latents, self._texts = (Store(folder, kind, process) for kind in ("latents", "texts"))

    @property
    def groups(self) -> list[list[int]]:
        """The examples by size."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, place in enumerate(self._places):
            by_size.setdefault(place.size, []).append(index)
        return list(by_size.values())

    def encode(self, wanted: Iterable[int], onlooker: Onlooker, pass_over: bool = False) -> None:
        """Make what the examples `wanted` lack in the cache: this process's share of it.

        Raises TrainingError for a picture that cannot be read, unless `pass_over`: then it goes on `lacking`. Raises
        Stopped where the onlooker wants it; whatever was made is kept either way.
        """
        indices, self._pass_over = list(wanted), pass_over
        try:
            self._encode_all("pictures", indices, self._latent_key, self._pixels, onlooker)
            self._base.autoencoder.to("cpu")
            self._room.give_back()
            self._encode_captions({text for index in indices for text in self.examples[index].captions}, onlooker)
            self._make_maps(indices, onlooker)
            if self._latent_hints:
                self._encode_all("maps", indices, self._hint_key, lambda i: as_tensor([self.hint(i)]), onlooker)
        finally:
            self._latents.flush()
            self._texts.flush()

    def lacking(self) -> list[int]:
        """Examples that are not wholly encoded."""
        return [
            index
            for index, example in enumerate(self.examples)
            if self._latent_key(index) not in self._latents
            or (_is_kept(example) and not self._map_path(example).is_file())
            or (self._latent_hints and self._hint_key(index) not in self._latents)
        ]

    def look(self) -> None:
        """See what other processes have encoded."""
        self._latents.look()
        self._texts.look()

    def release(self) -> None:
        """The encoders go back to the processor; what is encoded is on the disk."""
        self._base.autoencoder.to("cpu")
        if "text" in vars(self._base):  # else it was not even read
            self._base.text.to("cpu")
        self._room.give_back()

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
            latents=torch.stack([self._latents[self._latent_key(index)] for index in chosen]),
            context=context,
            empty_context=empty,
            hints=self._hints(chosen),
            y=y,
            empty_y=empty_y,
        )

    def hint(self, index: int) -> Pixels:
        """The control map (h, w, 3) of an example at the size it is trained at."""
        example = self.examples[index]
        if _is_kept(example):
            return fitted(self._kept_map(example), self._places[index].size)
        assert example.hint is not None
        return fitted(example.hint(), self._places[index].size)

    def picture(self, index: int) -> Pixels:
        """The true picture (h, w, 3) at the size it is trained at."""
        return fitted(self.examples[index].picture(), self._places[index].size)

    def _pixels(self, index: int) -> Tensor:
        """(1, 3, H, W) in -1..1. Where bad pairs are passed over, a map that is read at each visit is tried here: later
        it is too late."""
        if self._pass_over and not _is_kept(self.examples[index]):
            self.hint(index)
        return as_tensor([self.picture(index)]) * 2 - 1

    def _hints(self, indices: Sequence[int]) -> Tensor:
        if self._latent_hints:
            return torch.stack([self._latents[self._hint_key(index)] for index in indices])
        return as_tensor([self.hint(index) for index in indices])

    def _caption(self, example: Example, generator: torch.Generator) -> str:
        if len(example.captions) == 1:
            return example.captions[0]
        return example.captions[int(torch.randint(0, len(example.captions), (1,), generator=generator))]

    def _latent_key(self, index: int) -> str:
        place = self._places[index]
        made_by = self._base.autoencoder_digest, self._room.encoding(place.size)
        return digest(*made_by, self.examples[index].picture.facts().fingerprint, place.size)

    def _hint_key(self, index: int) -> str:
        place = self._places[index]
        made_by = self._base.autoencoder_digest, self._room.encoding(place.size)
        return digest("map", *made_by, *self._made_from(self.examples[index]), place.size)

    def _text_key(self, caption: str) -> str:
        return digest(self._base.text_digest, caption)

    def _contexts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        found = [self._text(caption) for caption in captions]
        pooled = [one for _, one in found if one is not None]
        return torch.stack([context for context, _ in found]), torch.stack(pooled) if pooled else None

    def _text(self, caption: str) -> tuple[Tensor, Tensor | None]:
        """From the cache, or, of prompts for which it had no room, encoded now, rounded as there."""
        key, deep = self._text_key(caption), self._base.unet.config.adm_channels is not None
        if key in self._texts:
            return self._texts[key], self._texts[f"{key}.pooled"] if deep else None
        made = self._base.text.to(self._room.device).encode([caption])
        context, pooled = made.context[0].cpu().half().float(), made.pooled
        return context, None if pooled is None or not deep else pooled[0].cpu().half().float()

    @property
    def _most_texts(self) -> int:
        """How many prompts the cache may hold."""
        each = 2 * (_TOKENS * self._base.unet.config.context_dim + (self._base.unet.config.adm_channels or 0))
        return max(1, int(self._options.text_cache * 2**30) // each)

    @property
    def _kept_texts(self) -> int:
        """How many it holds; those with a pooled text are two tensors each."""
        return len(self._texts) // (1 if self._base.unet.config.adm_channels is None else 2)

    def _encode_all(
        self, what: str, indices: Iterable[int], key: Callable[[int], str], pixels: Callable[[int], Tensor],
        onlooker: Onlooker,
    ) -> None:  # fmt: skip
        """What the cache lacks of the latents of `pixels` (1, 3, H, W), of those with one key the first: this process's
        share."""
        lacking: dict[str, int] = {}
        for index in indices:
            if key(index) not in self._latents:
                lacking.setdefault(key(index), index)
        mine = list(lacking.values())[self._process :: self._processes]
        done = 0
        for portion in self._portions(mine):
            _go_on(onlooker)
            read = {index: one for index in portion if (one := self._tried(partial(pixels, index))) is not None}
            made = self._room.encode(self._base.autoencoder, torch.cat([*read.values()])) if read else ()
            for index, latent in zip(read, made, strict=True):
                self._latents.add(key(index), latent, f'of {what}, "{self.examples[index].name}"')
            done += len(portion)
            onlooker.stage(what, done, len(mine))

    def _tried(self, make: Callable[[], Made]) -> Made | None:
        """None for what could not be read and is passed over; a disk that refuses is not."""
        try:
            return make()
        except TrainingError as error:
            if self._pass_over and error.field == "data":
                return None
            raise

    def _portions(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """What can be encoded at once: pictures of one size, as many as there is room and time for."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for index in indices:
            by_size.setdefault(self._places[index].size, []).append(index)
        for size, group in by_size.items():
            count = self._room.pictures_at_once(self._base.autoencoder, size, len(group))
            yield from in_portions(group, count)

    def _encode_captions(self, captions: set[str], onlooker: Onlooker) -> None:
        lacking = [text for text in sorted(captions | {""}) if self._text_key(text) not in self._texts]
        mine = lacking[: max(0, self._most_texts - self._kept_texts)][self._process :: self._processes]
        for start in range(0, len(mine), _TEXTS_AT_ONCE):
            _go_on(onlooker)
            portion = mine[start : start + _TEXTS_AT_ONCE]
            encoded = self._base.text.to(self._room.device).encode(portion)
            for number, text in enumerate(portion):
                key = self._text_key(text)
                if encoded.pooled is not None:
                    self._texts.add(f"{key}.pooled", encoded.pooled[number], f'the prompt "{text}"')
                self._texts.add(key, encoded.context[number], f'the prompt "{text}"')
            onlooker.stage("captions", start + len(portion), len(mine))

    def _make_maps(self, indices: Sequence[int], onlooker: Onlooker) -> None:
        examples = [self.examples[index] for index in indices]
        kept = {self._map_path(example): example for example in examples if _is_kept(example)}
        mine = [example for path, example in kept.items() if not path.is_file()][self._process :: self._processes]
        for number, example in enumerate(mine, 1):
            _go_on(onlooker)
            self._tried(partial(self._kept_map, example))
            onlooker.stage("control maps", number, len(mine))

    def _made_from(self, example: Example) -> tuple[object, ...]:
        """All that the map follows from."""
        options, picture = self._options, example.picture.facts().fingerprint
        if example.hint is None:
            return picture, options.preprocessor, options.preprocessor_params, options.resolution
        return picture, "given", example.hint.facts().fingerprint

    def _map_path(self, example: Example) -> Path:
        return self._folder / "maps" / f"{digest(*self._made_from(example))}.png"

    def _kept_map(self, example: Example) -> Pixels:
        """The map a preprocessor makes of the picture, or that lies where reading takes long, kept as a file."""
        options, path = self._options, self._map_path(example)
        if path.is_file():
            return read_picture(path, path.name)
        if example.hint is None:
            picture = example.picture()
            pixels = self._preprocess(options.preprocessor, picture, options.resolution, options.preprocessor_params)
        else:
            pixels = example.hint()
        write_whole(path, lambda partial: Image.fromarray(pixels).save(partial, "PNG"))
        return pixels


def _is_kept(example: Example) -> bool:
    """Its map is a file of the cache."""
    return example.hint is None or example.hint.far


def _go_on(onlooker: Onlooker) -> None:
    if onlooker.stopping():
        raise Stopped


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
