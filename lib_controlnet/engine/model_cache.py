"""Keeps loaded control models, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ..core.errors import ModelFileError
from ..families.base import ControlFamily, ControlModel, Runtime
from ..families.registry import load_model


class ModelCache:
    """Loaded models, least recently used first out; a file changed on disk is read anew.

    `limit()` is asked at every load: the most bytes of weights to keep besides the model being loaded.
    """

    def __init__(self, families: list[ControlFamily], limit: Callable[[], int]) -> None:
        self._families = families
        self._limit = limit
        self._models: OrderedDict[tuple[object, ...], ControlModel] = OrderedDict()
        self._bases: dict[tuple[object, ...], str] = {}

    def get(self, path: Path, runtime: Runtime, base_id: str) -> ControlModel:
        """The model of a file, on `runtime.device`. `base_id` names the checkpoint, which some files depend on."""
        try:
            stat = path.stat()
        except OSError as error:
            raise ModelFileError(
                f'"{path.name}" cannot be read: {error.strerror or error}',
                field="model",
                found=str(path),
                remedy="refresh the model list and choose another model",
            ) from error
        key = (path, stat.st_mtime_ns, stat.st_size, runtime.dtype)
        model = self._models.get(key)
        if model is None or (model.holds_base and self._bases[key] != base_id):
            self._models.pop(key, None)
            self._evict(stat.st_size)
            model = load_model(path, runtime, self._families)
            self._models[key], self._bases[key] = model, base_id
        self._models.move_to_end(key)
        model.move(runtime.device)
        return model

    def clear(self) -> None:
        """Forgets every model."""
        self._models.clear()

    def _evict(self, coming: int) -> None:
        limit = self._limit()
        while self._models and coming + sum(m.memory() for m in self._models.values()) > limit:
            self._models.popitem(last=False)
