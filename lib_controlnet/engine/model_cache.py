"""Keeps loaded control models in the computer's memory, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from weakref import WeakKeyDictionary

import torch

from ..core.errors import ModelFileError
from ..families.base import ControlFamily, ControlModel, Runtime
from ..families.registry import find_family, load_model
from ..loading.canonical import canonical
from ..loading.reader import read_weights
from ..loading.version import FileVersion, versions_in_use

_Key = tuple[Path, tuple[FileVersion | None, ...], torch.dtype]


@dataclass(frozen=True)
class _Made:
    """From what a model was made."""

    key: _Key
    base_id: str
    keeps_fp8: bool

    def serves(self, model: ControlModel, wanted: _Made) -> bool:
        """Whether `model`, which was made from this, is what would be made from `wanted`."""
        differs_in_base = model.holds_base and self.base_id != wanted.base_id
        differs_in_type = model.from_fp8 and self.keeps_fp8 != wanted.keeps_fp8
        return self.key == wanted.key and not differs_in_base and not differs_in_type


class ModelCache:
    """Loaded models, least recently used first out.

    A file changed on disk is read anew, as is one where something changed beside it that says how it is used; the old
    version leaves memory.

    `limit()` is asked at every load: the most bytes of weights to keep besides the model being loaded.
    """

    def __init__(self, families: list[ControlFamily], limit: Callable[[], int]) -> None:
        self._families = families
        self._limit = limit
        self._models: OrderedDict[_Key, ControlModel] = OrderedDict()
        self._alive: WeakKeyDictionary[ControlModel, _Made] = WeakKeyDictionary()
        """All that somebody holds: the cache, or a job from which it has been dropped since."""
        self.turn = RLock()
        """Held by whoever computes with models, or takes them off their device."""

    def embeddings(self, path: Path) -> Sequence[str]:
        """The kinds of embeddings that the model of a file reads (`Sheet.embeddings`), told by its keys."""
        weights = canonical(read_weights(path, shapes_only=True).weights)
        inspect = getattr(find_family(weights, self._families), "inspect", None)
        return () if inspect is None else inspect(path, weights).embeddings

    def get(self, path: Path, runtime: Runtime, base_id: str) -> ControlModel:
        """The model of a file, in the computer's memory unless a session has brought it to the device.

        `base_id` names the checkpoint, on which some files depend.
        """
        self._forget_replaced()
        versions = versions_in_use(path)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise ModelFileError(
                f'"{path.name}" cannot be read: {error.strerror or error}',
                field="model",
                found=str(path),
                remedy="refresh the model list and choose another model",
            ) from error
        wanted = _Made((path, versions, runtime.dtype), base_id, runtime.keeps_fp8)
        model = next((one for one, made in list(self._alive.items()) if made.serves(one, wanted)), None)
        if model is None or self._models.get(wanted.key) is not model:
            self._models.pop(wanted.key, None)
            self._evict(size)
        if model is None:
            model = load_model(path, runtime, self._families)
            if versions_in_use(path) != versions:
                raise ModelFileError(
                    f'"{path.name}" changed while it was read',
                    field="model",
                    found=str(path),
                    remedy="wait until the file is complete, then generate again",
                )
            self._alive[model] = wanted
        self._models[wanted.key] = model
        self._models.move_to_end(wanted.key)
        return model

    def clear(self) -> None:
        """Forgets every model."""
        self.release()
        self._models.clear()

    def forget_bases(self, base_id: str) -> None:
        """Forgets the models that hold the weights of another checkpoint than this one."""
        for key, model in list(self._models.items()):
            if model.holds_base and self._alive[model].base_id != base_id:
                del self._models[key]

    def release(self, limit: int = 0, keep: Collection[ControlModel] = ()) -> None:
        """Takes models off their device until those that are left there have `limit` bytes at most.

        Those that the cache has dropped go first, then the least recently used. `keep`: models that stay.
        """
        with self.turn:
            used = list(self._models.values())
            there = [model for model in self._alive if model.residence.away and model not in keep]
            there.sort(key=lambda model: used.index(model) if model in used else -1)
            size = sum(model.residence.size for model in there)
            for model in there:
                if size <= limit:
                    break
                model.residence.leave()
                size -= model.residence.size

    def _forget_replaced(self) -> None:
        for key in [key for key in self._models if versions_in_use(key[0]) != key[1]]:
            del self._models[key]

    def _evict(self, coming: int) -> None:
        limit = self._limit()
        while self._models and coming + sum(m.residence.size for m in self._models.values()) > limit:
            self._models.popitem(last=False)
