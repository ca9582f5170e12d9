"""Keeps loaded control models, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

from ..core.errors import ModelFileError
from ..families.base import ControlFamily, ControlModel, Runtime
from ..families.controlnet import DIFFERENCE_KEY
from ..families.registry import load_model


class ModelCache:
    """Loaded models, least recently used first out; a file changed on disk is read anew.

    `limit()` is asked at every load: the most bytes of weights to keep besides the model being loaded.
    """

    def __init__(self, families: list[ControlFamily], limit: Callable[[], int]) -> None:
        self._families = families
        self._limit = limit
        self._models: OrderedDict[tuple[object, ...], ControlModel] = OrderedDict()

    def get(self, path: Path, runtime: Runtime, base_id: str) -> ControlModel:
        """The model of a file, on `runtime.device`. `base_id` names the checkpoint (files of differences depend on it)."""
        try:
            stat = path.stat()
        except OSError as error:
            raise ModelFileError(
                f'"{path.name}" cannot be read: {error.strerror or error}',
                field="model",
                found=str(path),
                remedy="refresh the model list and choose another model",
            ) from error
        key = (path, stat.st_mtime_ns, stat.st_size, runtime.dtype, base_id if _is_difference(path) else "")
        model = self._models.get(key)
        if model is None:
            self._evict(stat.st_size)
            model = load_model(path, runtime, self._families)
            self._models[key] = model
        self._models.move_to_end(key)
        model.move(runtime.device)
        return model

    def clear(self) -> None:
        """Forgets every model."""
        self._models.clear()

    def offload(self, device: torch.device = torch.device("cpu")) -> None:
        """Moves every kept model off the accelerator."""
        for model in self._models.values():
            model.move(device)

    def _evict(self, coming: int) -> None:
        limit = self._limit()
        while self._models and coming + sum(m.memory() for m in self._models.values()) > limit:
            self._models.popitem(last=False)


def _is_difference(path: Path) -> bool:
    """Whether a file holds differences; read from the header, so cheap for safetensors."""
    if path.suffix != ".safetensors":
        return False
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return DIFFERENCE_KEY in file.keys()  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError):
        return False  # load_model says what is wrong with it
