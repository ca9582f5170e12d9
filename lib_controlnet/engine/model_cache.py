"""Keeps loaded control models, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

from ..core.errors import ModelFileError
from ..families.base import ControlFamily, ControlModel, Runtime
from ..families.registry import load_model
from ..loading.version import FileVersion, versions_in_use

_Key = tuple[Path, tuple[FileVersion | None, ...], torch.dtype]


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
        self._bases: dict[_Key, str] = {}

    def get(self, path: Path, runtime: Runtime, base_id: str) -> ControlModel:
        """The model of a file, on `runtime.device`. `base_id` names the checkpoint, which some files depend on."""
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
        key = (path, versions, runtime.dtype)
        model = self._models.get(key)
        if model is None or (model.holds_base and self._bases[key] != base_id):
            self._models.pop(key, None)  # its base is written anew below
            self._evict(size)
            model = load_model(path, runtime, self._families)
            if versions_in_use(path) != versions:
                raise ModelFileError(
                    f'"{path.name}" changed while it was read',
                    field="model",
                    found=str(path),
                    remedy="wait until the file is complete, then generate again",
                )
            self._models[key], self._bases[key] = model, base_id
        self._models.move_to_end(key)
        model.move(runtime.device)
        return model

    def clear(self) -> None:
        """Forgets every model."""
        self._models.clear()
        self._bases.clear()

    def _forget_replaced(self) -> None:
        for key in [key for key in self._models if versions_in_use(key[0]) != key[1]]:
            del self._models[key], self._bases[key]

    def _evict(self, coming: int) -> None:
        limit = self._limit()
        while self._models and coming + sum(m.memory() for m in self._models.values()) > limit:
            key, _model = self._models.popitem(last=False)
            del self._bases[key]
