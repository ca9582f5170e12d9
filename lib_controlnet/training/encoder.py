"""What is encoded once of a data set: latents of pictures, prompts, control maps.

Each is named by a digest of all it is made from: the content of the picture, its size in the training, the weights that
encode it. So a moved, cut or extended data set costs only what is new, and another VAE never meets the latents of
this one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor

from .base import Base
from .config import DataOptions
from .errors import Stopped, TrainingError
from .examples import Example
from .pictures import Pixels, as_tensor, fitted, read_picture, training_size
from .room import Room, in_portions
from .shares import What
from .state import write_whole
from .store import digest

_TEXTS_AT_ONCE = 8
Made = TypeVar("Made")

Preprocess = Callable[[str, Pixels, int, Sequence[float]], Pixels]
"""(name, picture (h, w, 3) RGB uint8, resolution, settings) -> map of the same size."""
Add = Callable[[str, Tensor, str], None]
"""(name, tensor, what it was made from in the user's words): keeps it."""


class Onlooker(Protocol):
    """Who waits for a long piece of work. `stopping`: whether it is to end now; it goes on later where it was."""

    def stage(self, what: str, done: int, total: int) -> None: ...
    def stopping(self) -> bool: ...


@dataclass(frozen=True)
class Place:
    """An example's size in pixels as it is trained, and what SDXL is told about sizes: original and crop."""

    size: tuple[int, int]
    original: tuple[int, int]


class Encoder:
    """`folder`: where maps are kept. `pass_over`: pictures that cannot be read are left out, not an error. `made`: how
    many latents, prompts and maps so far."""

    def __init__(self, base: Base, options: DataOptions, folder: Path, room: Room, preprocess: Preprocess) -> None:
        self._base, self._options, self._folder, self._room = base, options, folder, room
        self._preprocess = preprocess
        self.pass_over = False
        self.made: Counter[str] = Counter()

    def place(self, example: Example) -> Place:
        """Follows from the picture's size."""
        original = example.size()
        return Place(training_size(original, self._options.resolution, self._options.aspect), original)

    def latent_key(self, example: Example) -> str:
        size = self.place(example).size
        return digest(*self._encoded_by(size), example.picture.facts().fingerprint, size)

    def hint_key(self, example: Example) -> str:
        """Of the latent of its map."""
        size = self.place(example).size
        return digest("map", *self._encoded_by(size), *self._made_from(example), size)

    def text_key(self, caption: str) -> str:
        return digest(self._base.text_digest, caption)

    def map_path(self, example: Example) -> Path:
        """Where a map is kept that a preprocessor makes, or that lies where reading takes long."""
        return self._folder / "maps" / f"{digest(*self._made_from(example))}.png"

    def hint(self, example: Example) -> Pixels:
        """The control map (h, w, 3) at the size it is trained at."""
        size = self.place(example).size
        if is_kept(example):
            return fitted(self._kept_map(example), size)
        assert example.hint is not None
        return fitted(example.hint(), size)

    def picture(self, example: Example) -> Pixels:
        """The true picture (h, w, 3) at the size it is trained at."""
        return fitted(example.picture(), self.place(example).size)

    def make(self, what: What, items: Sequence[Any], add: Add, onlooker: Onlooker) -> None:
        """Make `what` of `items`, which are captions or examples.

        Raises TrainingError for a picture that cannot be read, unless it is passed over, and Stopped where the onlooker
        wants it.
        """
        if what == "captions":
            self._encode_texts(items, add, onlooker)
        elif what == "control maps":
            self._make_maps(items, onlooker)
        else:
            self._encode_pictures(what, items, add, onlooker)

    def text(self, captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """(context (n, N, D), pooled text (n, P) or None), wherever the encoder is."""
        encoded = self._base.text.to(self._room.device).encode(captions)
        return encoded.context, encoded.pooled

    def _encoded_by(self, size: tuple[int, int]) -> tuple[object, ...]:
        return self._base.autoencoder_digest, self._room.encoding(size)

    def _encode_pictures(self, what: What, examples: Sequence[Example], add: Add, onlooker: Onlooker) -> None:
        """Latents of pictures, or of maps in 0..1."""
        key, pixels = (self.latent_key, self._pixels) if what == "pictures" else (self.hint_key, self._hint_pixels)
        done = 0
        for portion in self._portions(examples):
            _go_on(onlooker)
            read = [(one, found) for one in portion if (found := self._tried(partial(pixels, one))) is not None]
            latents = self._room.encode(self._base.autoencoder, torch.cat([found for _, found in read])) if read else ()
            for (example, _), latent in zip(read, latents, strict=True):
                add(key(example), latent, f'of {what}, "{example.name}"')
            done += len(portion)
            self.made[what] += len(read)
            onlooker.stage(what, done, len(examples))

    def _pixels(self, example: Example) -> Tensor:
        """(1, 3, H, W) in -1..1. Where bad pairs are passed over, a map that is read at each visit is tried here: later
        it is too late."""
        if self.pass_over and not is_kept(example):
            self.hint(example)
        return as_tensor([self.picture(example)]) * 2 - 1

    def _hint_pixels(self, example: Example) -> Tensor:
        return as_tensor([self.hint(example)])

    def _portions(self, examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
        """What can be encoded at once: pictures of one size, as many as there is room and time for."""
        by_size: dict[tuple[int, int], list[Example]] = {}
        for example in examples:
            by_size.setdefault(self.place(example).size, []).append(example)
        for size, group in by_size.items():
            count = self._room.pictures_at_once(self._base.autoencoder, size, len(group))
            yield from in_portions(group, count)

    def _encode_texts(self, captions: Sequence[str], add: Add, onlooker: Onlooker) -> None:
        for start in range(0, len(captions), _TEXTS_AT_ONCE):
            _go_on(onlooker)
            portion = captions[start : start + _TEXTS_AT_ONCE]
            context, pooled = self.text(portion)
            for number, text in enumerate(portion):
                key = self.text_key(text)
                if pooled is not None:
                    add(f"{key}.pooled", pooled[number], f'the prompt "{text}"')
                add(key, context[number], f'the prompt "{text}"')
            self.made["captions"] += len(portion)
            onlooker.stage("captions", start + len(portion), len(captions))

    def _make_maps(self, examples: Sequence[Example], onlooker: Onlooker) -> None:
        for number, example in enumerate(examples, 1):
            _go_on(onlooker)
            self.made["control maps"] += self._tried(partial(self._kept_map, example)) is not None
            onlooker.stage("control maps", number, len(examples))

    def _made_from(self, example: Example) -> tuple[object, ...]:
        """All that the map follows from."""
        options, picture = self._options, example.picture.facts().fingerprint
        if example.hint is None:
            return picture, options.preprocessor, options.preprocessor_params, options.resolution
        return picture, "given", example.hint.facts().fingerprint

    def _kept_map(self, example: Example) -> Pixels:
        """The map from the cache; made and kept there where it lacks."""
        options, path = self._options, self.map_path(example)
        if path.is_file():
            return read_picture(path, path.name)
        if example.hint is None:
            picture = example.picture()
            pixels = self._preprocess(options.preprocessor, picture, options.resolution, options.preprocessor_params)
        else:
            pixels = example.hint()
        write_whole(path, lambda partial: Image.fromarray(pixels).save(partial, "PNG"))
        return pixels

    def _tried(self, make: Callable[[], Made]) -> Made | None:
        """None for what could not be read and is passed over; a disk that refuses is not."""
        try:
            return make()
        except TrainingError as error:
            if self.pass_over and error.field == "data":
                return None
            raise


def is_kept(example: Example) -> bool:
    """Its map is a file of the cache."""
    return example.hint is None or example.hint.far


def _go_on(onlooker: Onlooker) -> None:
    if onlooker.stopping():
        raise Stopped
