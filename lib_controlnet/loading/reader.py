"""Files of weights, read without running anything that is in them."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor

# A1111 puts a checker that may return None in the place of `torch.load`. This is PyTorch's own, whatever is there.
from torch.serialization import load as torch_load

from ..core.errors import ModelFileError
from .lazy import SafetensorsWeights, outlines
from .programs import holds_program

_LOAD_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)
_LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header, as the format's own reader has it."""
_DEEPEST = 2
"""Tables within tables of weights, as in {"model": {"ip_adapter": {...}}}; deeper lie an optimiser's notes."""
SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".safetensors", ".bin"})
"""Of files that may be models."""

_NOT_MODELS = (
    (rb"\s*(?:<!doctype|<html|<\?xml)", "a web page", "download the file itself, not the page that describes it"),
    (rb"version https://git-lfs", "a Git LFS pointer", "fetch the file itself with `git lfs pull`, or download it"),
    (rb"\x89PNG|\xff\xd8\xff|RIFF....WEBP", "a picture", "choose a model file"),
    (rb"GGUF", "a GGUF file", "use a .safetensors file of the model"),
    (rb"7z\xbc\xaf|Rar!|\x1f\x8b", "a packed archive", "unpack it first"),
)


@dataclass(frozen=True)
class WeightFile:
    """Tensors of one file by key, as the file has them, and its metadata (safetensors only).

    Those of safetensors are read when they are looked up, those of a pickle at once: see `lazy.is_fresh` for what may
    be kept without a copy.
    """

    path: Path
    weights: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


def read_weights(path: Path, *, shapes_only: bool = False) -> WeightFile:
    """The weights in `path`: safetensors, or a pickle of tensors; told apart by content, not by name.

    Nested tables of a pickle are flattened with dots, `state_dict` around everything is taken off. `shapes_only`: all
    tensors are on the meta device, and a large pickle is not read. Raises `ModelFileError` for a file that is missing,
    damaged, no model at all, or a pickle with more than tensors.
    """
    start, size = _start(path)
    if _is_safetensors(start):
        safetensors = SafetensorsWeights(path)
        weights = _not_empty(path, outlines(safetensors) if shapes_only else safetensors)
        return WeightFile(path, weights, safetensors.metadata)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        zipped = start.startswith(b"PK") and path.suffix != ".safetensors"  # PyTorch would look for another format
        weights = _not_empty(path, _read_pickle(path, mapped=shapes_only and zipped))
        return WeightFile(path, {key: value.to("meta") for key, value in weights.items()} if shapes_only else weights)
    for pattern, found, remedy in _NOT_MODELS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            raise _refused(path, "is not a model file", found, remedy)
    raise _refused(
        path,
        "is not a model file",
        f"{size} bytes of something else",
        "choose a .safetensors, .pth, .pt, .ckpt or .bin file of a control model",
    )


def legacy_hash(path: Path) -> str:
    """A1111's short hash: the first 8 hex digits of the SHA-256 of 64 KiB at 1 MiB. Weak, but what names refer to."""
    with path.open("rb") as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def _start(path: Path) -> tuple[bytes, int]:
    """First bytes and size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise _refused(
            path, "cannot be opened", f"{type(error).__name__}: {error}", "check that it exists and may be read"
        ) from error
    if not start:
        raise _refused(path, "is empty", "0 bytes", "download the file again")
    return start, size


def _is_safetensors(start: bytes) -> bool:
    """A header's length in 8 bytes, then the header. One length in 32 begins as pickles do, with 0x80, but theirs and
    those of zips, read as a length, are far beyond a header's."""
    if start[8:9] != b"{":
        return False
    return int.from_bytes(start[:8], "little") <= _LONGEST_HEADER or not start.startswith((b"PK", b"\x80"))


def _read_pickle(path: Path, *, mapped: bool) -> Mapping[str, Tensor]:
    """Tensors of a file written by torch.save. `mapped`: from the file, whose data must not be looked at then, since
    it may be cut meanwhile; only the zip format of PyTorch 1.6 and later can be.
    """
    try:
        with path.open("rb") as file:
            if holds_program(file):
                raise _with_code(path, "a TorchScript program")
            source, options = (str(path), {"mmap": True}) if mapped else (file, {})
            content = torch_load(source, map_location="cpu", weights_only=True, **options)
    except _LOAD_ERRORS as error:
        raise _pickle_error(path, error) from error
    return _tensors(path, content)


def _pickle_error(path: Path, error: Exception) -> ModelFileError:
    foreign = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)|module (\w[\w.]*) is blocked", str(error))
    if foreign and isinstance(error, pickle.UnpicklingError):
        name = next(group for group in foreign.groups() if group)
        return _with_code(path, f"the Python object {name}")
    first = (str(error).strip().splitlines() or [""])[0]
    return _refused(
        path,
        "is damaged",
        f"{path.stat().st_size} bytes that PyTorch cannot read ({type(error).__name__}: {first})",
        "download the file again; a download that did not finish looks like this",
    )


def _with_code(path: Path, found: str) -> ModelFileError:
    convert = (
        "import torch, safetensors.torch as s; "
        f"d = torch.load({path.name!r}, map_location='cpu', weights_only=False); "
        f"s.save_file({{k: v.contiguous() for k, v in d.get('state_dict', d).items() if hasattr(v, 'dtype')}}, "
        f"{path.stem + '.safetensors'!r})"
    )
    return _refused(
        path,
        "is refused because it can run code when it is opened",
        found,
        f'use the .safetensors version; or, only if you trust who made it, convert it: python -c "{convert}"',
    )


def _tensors(path: Path, content: object) -> dict[str, Tensor]:
    """The tensors in what a pickle holds, nested tables flattened with dots."""
    if not isinstance(content, Mapping):
        raise _refused(
            path, "holds no table of weights", f"a {type(content).__name__}", "use a file with a model's state dict"
        )
    table = cast("Mapping[Any, Any]", content)
    inner = table.get("state_dict")
    if isinstance(inner, Mapping):
        table = cast("Mapping[Any, Any]", inner)
    found: dict[str, Tensor] = {}
    waiting = [("", table, 0)]
    while waiting:
        prefix, part, depth = waiting.pop()
        for key, value in part.items():
            if isinstance(value, Tensor):
                found[f"{prefix}{key}"] = value.detach()
            elif isinstance(value, Mapping) and depth < _DEEPEST:
                waiting.append((f"{prefix}{key}.", cast("Mapping[Any, Any]", value), depth + 1))
    return found


def _not_empty(path: Path, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not weights:
        raise _refused(path, "holds no weights", "no tensor", "choose a control model's file")
    return weights


def _refused(path: Path, problem: str, found: str, remedy: str) -> ModelFileError:
    return ModelFileError(f'"{path.name}" {problem}', field="model", found=found, remedy=remedy)
