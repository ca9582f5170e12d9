"""Tensors kept on the disk by what they were made from, in shards that are written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import TrainingError
from .state import write_whole

SHARD = 256


def digest(*parts: object) -> str:
    """Name of what follows from `parts`."""
    text = "\0".join(f"{len(str(part))}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Of the content of `weights`."""
    made = hashlib.blake2b(digest_size=12)
    for key in sorted(weights):
        value = weights[key].detach().cpu().contiguous()
        made.update(f"{key}{value.dtype}{tuple(value.shape)}".encode())
        made.update(value.view(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()


class Store:
    """`kind`-*.safetensors in `folder`. Several processes may add, each under its own number; what others added since
    is seen after `look`."""

    def __init__(self, folder: Path, kind: str, process: int = 0) -> None:
        self._folder, self._kind, self._process = folder, kind, process
        self._where: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        self._waiting: dict[str, Tensor] = {}
        self.look()

    def look(self) -> None:
        """Find what is there; a damaged shard is removed, so that its content is made again."""
        known = set(self._open)
        for path in sorted(self._folder.glob(f"{self._kind}-*.safetensors")):
            if path in known:
                continue
            try:
                stream = safe_open(str(path), "pt")
            except (OSError, SafetensorError):
                path.unlink(missing_ok=True)
                continue
            self._open[path] = stream
            self._where |= dict.fromkeys(stream.keys(), path)

    def __contains__(self, key: str) -> bool:
        return key in self._where or key in self._waiting

    def __getitem__(self, key: str) -> Tensor:
        """In float32."""
        waiting = self._waiting.get(key)
        return (self._open[self._where[key]].get_tensor(key) if waiting is None else waiting).float()

    def add(self, key: str, value: Tensor, source: str) -> None:
        """Keep `value` in half precision, from the next full shard or `flush` on. `source`: what it was made from, in
        the user's words. Raises TrainingError for numbers that are none, or a disk that refuses."""
        value = value.detach().cpu().half().contiguous().clone()
        if not torch.isfinite(value).all():
            raise TrainingError(
                f"encoding {source} gave numbers that are none",
                field="data",
                remedy='use another VAE (base.vae), or train.precision = "bf16"; some overflow in half precision',
            )
        self._waiting[key] = value
        if len(self._waiting) >= SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        numbers = [
            int(p.stem.rsplit("-", 1)[1]) for p in self._folder.glob(f"{self._kind}-{self._process}-*.safetensors")
        ]
        path = self._folder / f"{self._kind}-{self._process}-{max(numbers, default=-1) + 1:05d}.safetensors"
        write_whole(path, lambda partial: save_file(self._waiting, str(partial)))
        self._waiting = {}
        self.look()
