"""Weights that are looked up when they are needed: mappings from key to tensor that hold no tensor themselves.

A look-up reads its own piece of the file into memory of its own, which goes when the tensor goes. So a network is
filled with one copy of its weights in memory, a 7 GB checkpoint costs nothing but the keys that are asked for, and a
file that is overwritten or cut meanwhile is an error: were it mapped, it would be the end of the process (SIGBUS).
"""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import ModelFileError

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
FP8 = frozenset((torch.float8_e4m3fn, torch.float8_e5m2))
_LONGEST_HEADER = 100_000_000  # the format's own limit
_LARGEST = 1 << 62  # elements, bytes: beyond lies what torch cannot count
_MOST_DIMENSIONS = 16
_AGAIN = "download the file again"


@dataclass(frozen=True)
class _Entry:
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # bytes from the start of the file

    @property
    def length(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class LazyWeights(Mapping[str, Tensor]):
    """A mapping whose look-ups cost something, so that shapes have a way of their own."""

    fresh: bool
    """Every look-up gives memory that nobody else holds, which may be kept without a copy."""

    def outline(self, key: str) -> Tensor:
        """The tensor's dtype and shape: on the meta device."""
        raise NotImplementedError


class SafetensorsWeights(LazyWeights):
    """Tensors of a .safetensors file, each read at the look-up.

    Raises `ModelFileError` where header and size do not agree, and at a look-up where the file has been cut since.
    Format: huggingface/safetensors, README "Format".
    """

    fresh = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._turn = threading.Lock()
        weakref.finalize(self, self._file.close)
        size = path.stat().st_size
        length = int.from_bytes(self._file.read(8), "little")
        if length > min(size - 8, _LONGEST_HEADER):
            raise _damaged(path, f"a header of {length} bytes in a file of {size} bytes", _AGAIN)
        header = _parse_header(path, self._file.read(length))
        self.metadata = _metadata(header)
        self._entries = {key: _entry(path, key, value, 8 + length, size) for key, value in header.items()}
        _refuse_overlaps(path, self._entries)

    def __getitem__(self, key: str) -> Tensor:
        entry = self._entries[key]
        tensor = torch.empty(entry.shape, dtype=entry.dtype)
        if tensor.numel():
            content: NDArray[np.uint8] = tensor.view(-1).view(torch.uint8).numpy()  # pyright: ignore
            self._read(entry, memoryview(cast("Any", content)))
        return tensor

    def outline(self, key: str) -> Tensor:
        entry = self._entries[key]
        return torch.empty(entry.shape, dtype=entry.dtype, device="meta")

    def _read(self, entry: _Entry, memory: memoryview) -> None:
        done = 0
        with self._turn:
            self._file.seek(entry.start)
            while done < len(memory):  # systems read at most 2 GB at once
                count = self._file.readinto(memory[done:])
                if not count:
                    raise ModelFileError(
                        f'"{self._path.name}" was cut off while it was read',
                        field="model",
                        found=f"an end at byte {entry.start + done}",
                        remedy="wait until the file is complete, then try again",
                    )
                done += count

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries


class RenamedWeights(LazyWeights):
    """`source` under other names: `names` maps each new key to the key in `source`."""

    def __init__(self, source: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        self._source = source
        self._names = dict(names)
        self.fresh = is_fresh(source)

    def __getitem__(self, key: str) -> Tensor:
        return self._source[self._names[key]]

    def outline(self, key: str) -> Tensor:
        return outline(self._source, self._names[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, key: object) -> bool:
        return key in self._names


def outline(weights: Mapping[str, Tensor], key: str) -> Tensor:
    """Dtype and shape of a tensor, without reading it where that costs something. Its data must not be used."""
    return weights.outline(key) if isinstance(weights, LazyWeights) else weights[key]


def outlines(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`weights` for those who look at shapes only."""
    return _Outlines(weights) if isinstance(weights, LazyWeights) else weights


def is_fresh(weights: Mapping[str, Tensor]) -> bool:
    """Whether a look-up's memory is nobody else's."""
    return isinstance(weights, LazyWeights) and weights.fresh


class _Outlines(Mapping[str, Tensor]):
    def __init__(self, weights: LazyWeights) -> None:
        self._weights = weights

    def __getitem__(self, key: str) -> Tensor:
        return self._weights.outline(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __contains__(self, key: object) -> bool:
        return key in self._weights


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # wrong UTF-8, wrong JSON, a name twice; nested too deeply
        raise _damaged(path, f"an unreadable header ({error})", _AGAIN) from error
    if not isinstance(header, dict):
        raise _damaged(path, "a header that is no table of tensors", _AGAIN)
    return cast("dict[str, Any]", header)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name twice in one table")
    return table


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    stated = header.pop("__metadata__", None)
    if not isinstance(stated, dict):
        return {}
    return {str(key): str(value) for key, value in cast("dict[object, object]", stated).items()}


def _entry(path: Path, key: str, value: Any, data: int, size: int) -> _Entry:
    """The header's entry of one tensor, checked against the file's size. `data`: where the tensors' bytes begin."""
    try:
        name, shape = str(value["dtype"]), tuple(map(_whole, value["shape"]))
        start, end = map(_whole, value["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f'no dtype, shape and offsets for "{key}"', _AGAIN) from error
    dtype = getattr(torch, _DTYPES.get(name, ""), None)
    if not isinstance(dtype, torch.dtype):
        raise _damaged(path, f'"{key}" in the number format {name}', "use a float32, float16, bfloat16 or float8 file")
    too_large = len(shape) > _MOST_DIMENSIONS or math.prod(max(length, 1) for length in shape) > _LARGEST
    if too_large or min(shape, default=0) < 0 or start < 0 or end - start != math.prod(shape) * dtype.itemsize:
        raise _damaged(path, f'{end - start} bytes for "{key}" of shape {shape} in {name}', _AGAIN)
    if data + end > size:
        raise ModelFileError(
            f'"{path.name}" is cut off',
            field="model",
            found=f'{size} bytes; "{key}" ends at byte {data + end}',
            remedy="download the file again; the first download did not finish",
        )
    return _Entry(dtype, shape, data + start)


def _whole(value: object) -> int:
    if type(value) is not int or abs(value) > _LARGEST:
        raise ValueError("not a whole number that a file can have")
    return value


def _refuse_overlaps(path: Path, entries: Mapping[str, _Entry]) -> None:
    """Bytes belong to one tensor: anything else is a file made to confuse."""
    end, before = 0, ""
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].length)):
        if entry.length and entry.start < end:
            raise _damaged(path, f'"{before}" and "{key}" in the same bytes', _AGAIN)
        if entry.length:
            end, before = entry.start + entry.length, key


def _damaged(path: Path, found: str, remedy: str) -> ModelFileError:
    return ModelFileError(f'"{path.name}" cannot be read as safetensors', field="model", found=found, remedy=remedy)
