"""Weights that a file holds in part only: the rest is the base U-Net's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from .lazy import LazyWeights, outline

COPIED = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")
"""Beginnings of the names of what a ControlNet copies."""


class OnBase(LazyWeights):
    """`own` keys of a file and, of what a ControlNet copies, those of the base that the file leaves out."""

    fresh = False

    def __init__(self, file: Mapping[str, Tensor], base: Mapping[str, Tensor], own: Iterable[str]) -> None:
        self._file = file
        self._base = base
        copied = (key for key in base if key.startswith(COPIED) and key not in file)
        self._keys = dict.fromkeys([*own, *copied])

    def made(self, key: str) -> Tensor:
        """The tensor of a key that is there, from file and base."""
        raise NotImplementedError

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return self.made(key)

    def outline(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return outline(self._file if key in self._file else self._base, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys
