"""Machines of a Ray cluster that encode a data set for a training: `train --prepare --engine ray`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lib_controlnet.core.errors import ControlNetError
from lib_controlnet.training.base import load_encoders
from lib_controlnet.training.config import BaseOptions, DataOptions
from lib_controlnet.training.encoder import Encoder
from lib_controlnet.training.room import Room
from lib_controlnet.training.shares import Done, Helpers, Share
from lib_controlnet.training.store import OneShard

from ..cluster import Cluster, Failed, spread
from .preprocessors import Preprocessors


@dataclass(frozen=True)
class Work:
    """All that what is encoded follows from besides the pictures; `weights`: folders of preprocessors'. Plain values:
    every process gets a copy."""

    base: BaseOptions
    data: DataOptions
    precision: str
    weights: tuple[Path, ...]


def on_ray(ray: Any, cluster: Cluster, work: Work) -> Helpers:
    """Helpers on a connected cluster, whose machines see the same files under the same paths."""

    def helped(shares: Iterable[Share], go_on: Callable[[], None]) -> Iterator[tuple[Share, Done]]:
        for share, found in spread(ray, make, shares, work, cluster, go_on=go_on):
            yield share, _lost(share, found.reason) if isinstance(found, Failed) else found

    return helped


def make(share: Share, work: Work) -> Done:
    """What `share` asks for, in a process of the cluster."""
    try:
        return _worker(work)(share)
    except ControlNetError as error:
        return Done.failed(error)


class _Worker:
    """This process's encoders, loaded once."""

    def __init__(self, work: Work) -> None:
        self._work, self._base = work, load_encoders(work.base)
        self._preprocess = Preprocessors(work.weights)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._room = Room(device, work.precision, self._base.unet.config.adm_channels is not None)

    def __call__(self, share: Share) -> Done:
        encoder = Encoder(self._base, self._work.data, share.folder, self._room, self._preprocess)
        encoder.pass_over = share.pass_over
        shard = OneShard(share.shard)
        encoder.make(share.what, share.captions or share.examples, shard.add, _Nobody())
        shard.flush()
        return Done(encoder.made.total())


class _Nobody:
    """Looks on from here: whoever wants it stopped ends the process, and the share is begun anew another time."""

    def stage(self, what: str, done: int, total: int) -> None: ...

    def stopping(self) -> bool:
        return False


@lru_cache(maxsize=1)
def _worker(work: Work) -> _Worker:
    return _Worker(work)


def _lost(share: Share, reason: str) -> Done:
    named = share.examples[0].name if share.examples else share.captions[0]
    remedy = "see that every machine has this version of the repository, and memory enough; what was made is kept"
    return Done(error=(f'{len(share)} {share.what} from "{named}" on could not be made', "engine", reason, remedy))
