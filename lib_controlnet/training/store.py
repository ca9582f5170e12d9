"""Tensors kept on the disk by what they were made from, in shards that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .disk_table import DiskTable
from .errors import TrainingError
from .state import write_whole

SHARD = 256
_MOST_OPEN = 2048
"""Of half a million pictures. A file that stays open costs its table of contents, some 30 kB, and no descriptor."""
_LONGEST = 60.0
"""Seconds after which what waits is written, full shard or not: a kill costs no more than that."""
_SHARD_KEY, _SUFFIX = "shard ", ".safetensors"


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
    """`kind`-*.safetensors in `folder`. Several processes may add, each under its own name; what others added since
    is seen after `look`. Where each tensor lies is looked up in a file of this process's, made from the shards."""

    def __init__(self, folder: Path, kind: str, process: int = 0) -> None:
        self._folder, self._kind, self._process = folder, kind, process
        self._index = DiskTable(folder / f"{kind}-{process}.index")
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._waiting: dict[str, Tensor] = {}
        self._next, self._written = 0, time.monotonic()
        self.look()

    def look(self) -> None:
        """Find what is there; a damaged shard is removed, so that its content is made again."""
        known, there = self._index.keys_from(_SHARD_KEY), self._shards()
        self._open.clear()
        for key, state in known.items():
            name = key.removeprefix(_SHARD_KEY)
            if there.get(name) != state:  # gone, or another by now
                self._index.forget(key, value=name)
        for name, state in there.items():
            if known.get(_SHARD_KEY + name) != state:
                self._read(name, state)
        self._index.commit()

    def __contains__(self, key: str) -> bool:
        return key in self._waiting or self._index.get(key) is not None

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self._waiting) + self._index.count_below(_SHARD_KEY)

    def __getitem__(self, key: str) -> Tensor:
        """In float32."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            return waiting.float()
        name = self._index.get(key)
        if name is None:
            raise KeyError(key)
        return self._shard(name).get_tensor(key).float()

    def add(self, key: str, value: Tensor, source: str) -> None:
        """Keep `value` in half precision, from the next full shard or `flush` on. `source`: what it was made from, in
        the user's words. Raises TrainingError for numbers that are none, or a disk that refuses."""
        self._waiting[key] = _checked(value, source)
        if len(self._waiting) >= SHARD or time.monotonic() - self._written > _LONGEST:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._written = time.monotonic()
        if not self._waiting:
            return
        path = self.path_of(self.reserve())
        write_whole(path, lambda partial: save_file(self._waiting, str(partial)))
        self._known(path.name, _state(path.stat()), self._waiting)
        self._waiting = {}
        self._index.commit()

    def reserve(self) -> int:
        """The number of a shard that somebody else is to write for this process."""
        self._next += 1
        return self._next - 1

    def path_of(self, number: int) -> Path:
        """Of this process's shard of that number."""
        return self._folder / f"{self._kind}-{self._process}-{number:05d}{_SUFFIX}"

    def take(self, number: int) -> None:
        """See what lies in the shard `number`, if it was written."""
        path = self.path_of(number)
        if path.is_file():
            self._read(path.name, _state(path.stat()))
            self._index.commit()

    def _shards(self) -> dict[str, str]:
        """Name and state of each file; the number of this process's next one is behind all of its own."""
        if not self._folder.is_dir():
            return {}
        with os.scandir(self._folder) as entries:
            mine = [entry for entry in entries if entry.name.startswith(f"{self._kind}-")]
        found = {entry.name: _state(entry.stat()) for entry in mine if entry.name.endswith(_SUFFIX)}
        own = f"{self._kind}-{self._process}-"
        numbers = [int(name.removeprefix(own).removesuffix(_SUFFIX)) for name in found if name.startswith(own)]
        self._next = max(self._next, 1 + max(numbers, default=-1))
        return found

    def _read(self, name: str, state: str) -> None:
        """Which tensors lie in a shard."""
        try:
            self._known(name, state, self._shard(name).keys())
        except (OSError, SafetensorError):
            (self._folder / name).unlink(missing_ok=True)

    def _known(self, name: str, state: str, keys: Iterable[str]) -> None:
        for key in keys:
            self._index.put(key, name)
        self._index.put(f"{_SHARD_KEY}{name}", state)

    def _shard(self, name: str) -> Any:
        """Opened; the last ones used stay so."""
        found = self._open.pop(name, None)
        if found is None:
            found = safe_open(str(self._folder / name), "pt")
        self._open[name] = found
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        return found


class OneShard:
    """Of a process that helps another's `Store`: what it makes goes into one file, and it knows of nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: dict[str, Tensor] = {}

    def add(self, key: str, value: Tensor, source: str) -> None:
        """See Store."""
        self._made[key] = _checked(value, source)

    def flush(self) -> None:
        """Write the file, if there is anything in it."""
        if self._made:
            write_whole(self._path, lambda partial: save_file(self._made, str(partial)))


def _checked(value: Tensor, source: str) -> Tensor:
    """In half precision, finite."""
    value = value.detach().cpu().half().contiguous().clone()
    if not torch.isfinite(value).all():
        raise TrainingError(
            f"encoding {source} gave numbers that are none",
            field="data",
            remedy='use another VAE (base.vae), or train.precision = "bf16"; some overflow in half precision',
        )
    return value


def _state(stat: os.stat_result) -> str:
    """Changes with the content."""
    return f"{stat.st_size} {stat.st_mtime_ns}"
