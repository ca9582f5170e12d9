"""Pictures and prompts encoded once, kept on the disk, and read from there in every epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..nets.blocks import timestep_embedding
from .base import Base
from .config import DataOptions
from .dataset import Batch
from .encoder import Encoder, Onlooker, Place, Preprocess, is_kept
from .errors import Stopped, TrainingError
from .examples import Example
from .pictures import Pixels, as_tensor
from .room import Room
from .shares import SHARE, Helpers, Share, What
from .store import Store

__all__ = ["EncodedData", "Onlooker", "Place", "Preprocess"]
_TOKENS = 77
_TIME_DIM = 256


class EncodedData:
    """A `ControlDataset` over a cache: examples with latents, prompts and control maps.

    `process` of `processes`: each encodes its share. `latent_hints`: maps are given as the latents that the
    auto-encoder makes of their pixels in 0..1, as CtrLoRA's authors give it them. `helpers` encode in place of this
    process.
    """

    def __init__(
        self, base: Base, options: DataOptions, folder: Path, room: Room, preprocess: Preprocess,
        examples: Sequence[Example], process: int = 0, processes: int = 1, latent_hints: bool = False,
        helpers: Helpers | None = None,
    ) -> None:  # fmt: skip
        self._base, self._options, self._folder, self._room = base, options, folder, room
        self._process, self._processes, self._helpers = process, processes, helpers
        self._latent_hints = latent_hints
        self._encoder = Encoder(base, options, folder, room, preprocess)
        self.examples = list(examples)
        self._places = [self._encoder.place(example) for example in self.examples]
        self._latents, self._texts = (Store(folder, kind, process) for kind in ("latents", "texts"))

    @property
    def made(self) -> Counter[str]:
        """How many latents, prompts and maps were made so far, here or by helpers."""
        return self._encoder.made

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
        examples = [self.examples[index] for index in wanted]
        self._encoder.pass_over = pass_over
        try:
            self._do("pictures", self._lacking(examples, self._encoder.latent_key), onlooker)
            self._base.autoencoder.to("cpu")
            self._room.give_back()
            self._do("captions", self._lacking_texts(examples), onlooker)
            self._do("control maps", self._lacking_maps(examples), onlooker)
            if self._latent_hints:
                self._do("maps", self._lacking(examples, self._encoder.hint_key), onlooker)
        finally:
            self._latents.flush()
            self._texts.flush()

    def lacking(self) -> list[int]:
        """Examples that are not wholly encoded."""
        return [
            index
            for index, example in enumerate(self.examples)
            if self._encoder.latent_key(example) not in self._latents
            or (is_kept(example) and not self._encoder.map_path(example).is_file())
            or (self._latent_hints and self._encoder.hint_key(example) not in self._latents)
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
            latents=self._stacked(chosen, self._encoder.latent_key),
            context=context,
            empty_context=empty,
            hints=self._hints(chosen),
            y=y,
            empty_y=empty_y,
        )

    def hint(self, index: int) -> Pixels:
        """The control map (h, w, 3) of an example at the size it is trained at."""
        return self._encoder.hint(self.examples[index])

    def picture(self, index: int) -> Pixels:
        """The true picture (h, w, 3) at the size it is trained at."""
        return self._encoder.picture(self.examples[index])

    def _do(self, what: What, items: Sequence[Any], onlooker: Onlooker) -> None:
        """Make `what` of `items` that lack it: here what is this process's share, or all of it elsewhere."""
        store = self._texts if what == "captions" else self._latents
        if self._helpers is None:
            mine = items[self._process :: self._processes]
            self._encoder.make(what, mine, store.add, onlooker)
            return

        def go_on() -> None:
            if onlooker.stopping():
                raise Stopped

        done = 0
        numbers: dict[Path, int] = {}
        for share, answer in self._helpers(self._shares(what, items, store, numbers), go_on):
            answer.raise_error()
            store.take(numbers.pop(share.shard))
            self._check_taken(share, store)
            self.made[what] += answer.made
            done += len(share)
            onlooker.stage(what, done, len(items))

    def _shares(self, what: What, items: Sequence[Any], store: Store, numbers: dict[Path, int]) -> Iterable[Share]:
        """`items` divided; `numbers` of the shards are noted."""
        for start in range(0, len(items), SHARE):
            part = tuple(items[start : start + SHARE])
            number = store.reserve()
            path = store.path_of(number)
            numbers[path] = number
            examples, captions = ((), part) if what == "captions" else (part, ())
            yield Share(what, self._folder, path, examples, captions, self._encoder.pass_over)

    def _check_taken(self, share: Share, store: Store) -> None:
        """Raises TrainingError where a helper made something else than was asked for: its weights are others."""
        if share.what == "control maps" or share.pass_over:
            return
        encoder = self._encoder
        wanted = [encoder.text_key(text) for text in share.captions]
        wanted += map(encoder.latent_key if share.what == "pictures" else encoder.hint_key, share.examples)
        if not all(key in store for key in wanted):
            raise TrainingError(
                "another machine made something else than was asked for", field="base.checkpoint",
                found=f"{share.what} encoded by other weights, or written into another folder",
                remedy="see that checkpoint, data and output folder are the same on all machines, under the same paths",
            )  # fmt: skip

    def _stacked(self, indices: Sequence[int], key: Callable[[Example], str]) -> Tensor:
        return torch.stack([self._latents[key(self.examples[index])] for index in indices])

    def _hints(self, indices: Sequence[int]) -> Tensor:
        if self._latent_hints:
            return self._stacked(indices, self._encoder.hint_key)
        return as_tensor([self.hint(index) for index in indices])

    def _caption(self, example: Example, generator: torch.Generator) -> str:
        if len(example.captions) == 1:
            return example.captions[0]
        return example.captions[int(torch.randint(0, len(example.captions), (1,), generator=generator))]

    def _contexts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        found = [self._text(caption) for caption in captions]
        pooled = [one for _, one in found if one is not None]
        return torch.stack([context for context, _ in found]), torch.stack(pooled) if pooled else None

    def _text(self, caption: str) -> tuple[Tensor, Tensor | None]:
        """From the cache, or, of prompts for which it had no room, encoded now, rounded as there."""
        key, deep = self._encoder.text_key(caption), self._base.unet.config.adm_channels is not None
        if key in self._texts:
            return self._texts[key], self._texts[f"{key}.pooled"] if deep else None
        context, pooled = self._encoder.text([caption])
        context = context[0].cpu().half().float()
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

    def _lacking(self, examples: Iterable[Example], key: Callable[[Example], str]) -> list[Example]:
        """Those whose latent is not there, of several with one key the first."""
        lacking: dict[str, Example] = {}
        for example in examples:
            name = key(example)
            if name not in self._latents:
                lacking.setdefault(name, example)
        return list(lacking.values())

    def _lacking_texts(self, examples: Iterable[Example]) -> list[str]:
        captions = {text for example in examples for text in example.captions} | {""}
        lacking = [text for text in sorted(captions) if self._encoder.text_key(text) not in self._texts]
        return lacking[: max(0, self._most_texts - self._kept_texts)]

    def _lacking_maps(self, examples: Iterable[Example]) -> list[Example]:
        kept = {self._encoder.map_path(example): example for example in examples if is_kept(example)}
        return [example for path, example in kept.items() if not path.is_file()]


def size_condition(pooled: Tensor, places: Sequence[Place]) -> Tensor:
    """SDXL's `y` (B, P + 6 x 256): pooled text, then sinusoids of original size, crop and target size, each as
    (height, width) (Podell et al. 2023, arXiv:2307.01952, section 2.2)."""
    rows = [(*p.original[::-1], *_crop(p), *p.size[::-1]) for p in places]
    numbers = torch.tensor(rows, dtype=torch.float32)
    embedded = timestep_embedding(numbers.flatten(), _TIME_DIM).reshape(len(rows), -1)
    return torch.cat([pooled, embedded], dim=1)


def _crop(place: Place) -> tuple[int, int]:
    """(top, left) of what `fitted` keeps, in pixels of the resized picture."""
    scale = max(place.size[0] / place.original[0], place.size[1] / place.original[1])
    across, down = round(place.original[0] * scale), round(place.original[1] * scale)
    return max(down - place.size[1], 0) // 2, max(across - place.size[0], 0) // 2
