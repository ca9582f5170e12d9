"""Weights that are looked up when they are needed: mappings from key to tensor that hold no tensor themselves.

A look-up maps its own piece of the file and the piece goes when the tensor goes. So a network is filled with one
copy of its weights in memory, and a 7 GB checkpoint costs nothing but the keys that are asked for.
"""

from __future__ import annotations

import json
import math
import mmap
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
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
_LONGEST_HEADER = 100_000_000  # the format's own limit
_AGAIN = "download the file again"


@dataclass(frozen=True)
class _Entry:
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # bytes from the start of the file


class SafetensorsWeights(Mapping[str, Tensor]):
    """Tensors of a .safetensors file, each mapped from the file at the look-up (copy on write).

    A tensor is the file's memory: whoever keeps it must copy it, since the file may be replaced or cut later.
    Raises `ModelFileError` where header and size do not agree. Format: huggingface/safetensors, README "Format".
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        size = path.stat().st_size
        length = int.from_bytes(self._file.read(8), "little")
        if length > min(size - 8, _LONGEST_HEADER):
            raise _damaged(path, f"a header of {length} bytes in a file of {size} bytes", _AGAIN)
        header = _parse_header(path, self._file.read(length))
        self.metadata = _metadata(header)
        self._entries = {key: _entry(path, key, value, 8 + length, size) for key, value in header.items()}

    def __getitem__(self, key: str) -> Tensor:
        entry = self._entries[key]
        count = math.prod(entry.shape)
        if not count:
            return torch.empty(entry.shape, dtype=entry.dtype)
        page = entry.start - entry.start % mmap.ALLOCATIONGRANULARITY
        length = entry.start - page + count * entry.dtype.itemsize
        piece = mmap.mmap(self._file.fileno(), length, access=mmap.ACCESS_COPY, offset=page)
        flat = torch.frombuffer(piece, dtype=entry.dtype, count=count, offset=entry.start - page)
        return flat.view(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries


class RenamedWeights(Mapping[str, Tensor]):
    """`source` under other names: `names` maps each new key to the key in `source`."""

    def __init__(self, source: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        self._source = source
        self._names = dict(names)

    def __getitem__(self, key: str) -> Tensor:
        return self._source[self._names[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, key: object) -> bool:
        return key in self._names


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError as error:  # both wrong UTF-8 and wrong JSON
        raise _damaged(path, f"an unreadable header ({error})", _AGAIN) from error
    if not isinstance(header, dict):
        raise _damaged(path, "a header that is no table of tensors", _AGAIN)
    return cast("dict[str, Any]", header)


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    stated = header.pop("__metadata__", None)
    if not isinstance(stated, dict):
        return {}
    return {str(key): str(value) for key, value in cast("dict[object, object]", stated).items()}


def _entry(path: Path, key: str, value: Any, data: int, size: int) -> _Entry:
    """The header's entry of one tensor, checked against the file's size. `data`: where the tensors' bytes begin."""
    try:
        name, shape = str(value["dtype"]), tuple(int(length) for length in value["shape"])
        start, end = (int(offset) for offset in value["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f'no dtype, shape and offsets for "{key}"', _AGAIN) from error
    dtype = getattr(torch, _DTYPES.get(name, ""), None)
    if not isinstance(dtype, torch.dtype):
        raise _damaged(path, f'"{key}" in the number format {name}', "use a float32, float16, bfloat16 or float8 file")
    if min(shape, default=0) < 0 or start < 0 or end - start != math.prod(shape) * dtype.itemsize:
        raise _damaged(path, f'{end - start} bytes for "{key}" of shape {shape} in {name}', _AGAIN)
    if data + end > size:
        raise ModelFileError(
            f'"{path.name}" is cut off',
            field="model",
            found=f'{size} bytes; "{key}" ends at byte {data + end}',
            remedy="download the file again; the first download did not finish",
        )
    return _Entry(dtype, shape, data + start)


def _damaged(path: Path, found: str, remedy: str) -> ModelFileError:
    return ModelFileError(f'"{path.name}" cannot be read as safetensors', field="model", found=found, remedy=remedy)
