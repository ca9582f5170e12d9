"""Embeddings that a caller hands in, in place of a picture: safetensors in base64, or tensors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from .embeddings import ZERO_HIDDEN
from .errors import UnitError

Embeddings = Mapping[str, Tensor]
MAX_ITEMS = 100
MAX_BYTES = 64 << 20
"""Of one item; the hidden states of the largest encoder have 2 MB."""
_PICKLES = (b"PK\x03\x04", b"\x80")


def read_embeddings(value: object) -> tuple[Embeddings, ...]:
    """One table of tensors by name for each item; one item may come without a list. Raises UnitError."""
    items = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else [value]
    if len(items) > MAX_ITEMS:
        raise UnitError("there are too many embeddings", found=len(items), remedy=f"give at most {MAX_ITEMS}")
    return tuple(_item(item) for item in items)


def stacked(tables: Sequence[Embeddings]) -> Embeddings:
    """The embeddings of several pictures as one table, one behind the other. Raises UnitError where names differ."""
    names = list(tables[0])
    if any(set(table) != set(names) for table in tables):
        raise UnitError(
            "the pictures of a unit have embeddings of several kinds",
            field="ipadapter_input",
            found="; ".join(", ".join(table) for table in tables),
            remedy="make all of them with one preprocessor",
        )
    return {
        name: tables[0][name] if name == ZERO_HIDDEN else torch.cat([table[name] for table in tables]) for name in names
    }


def _item(item: object) -> Embeddings:
    table = cast("Mapping[object, object]", item) if isinstance(item, Mapping) else _decoded(item)
    if not table or not all(isinstance(name, str) and isinstance(part, Tensor) for name, part in table.items()):
        raise UnitError("these are no embeddings by name", found=", ".join(map(str, table)) or "nothing")
    return {name: _checked(name, part) for name, part in cast("Embeddings", table).items()}


def _checked(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.dim() < 2 or not tensor.numel():
        found = f"{name}: {tuple(tensor.shape)} {tensor.dtype}"
        raise UnitError("an embedding is no table of numbers, one row a picture", found=found)
    kept = tensor.detach().to("cpu", torch.float32).contiguous()
    if not bool(torch.isfinite(kept).all()):
        raise UnitError("an embedding has numbers that are infinite or none", found=name, remedy="make it anew")
    return kept


def _decoded(item: object) -> Embeddings:
    if not isinstance(item, (str, bytes)):
        raise UnitError("this is no embedding", found=type(item).__name__, remedy=_REMEDY)
    text = item if isinstance(item, bytes) else item.rpartition("base64,")[2].encode("ascii", "replace")
    if len(text) > MAX_BYTES * 4 // 3:
        raise UnitError("the embedding is too large", found=f"{len(text)} characters", remedy=_REMEDY)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnitError("the embedding is not base64", found=str(error), remedy=_REMEDY) from error
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        if content.startswith(
            _PICKLES
        ):  # asked now: the length of a safetensors' header may begin with these bytes too
            raise UnitError(
                "the embedding is a pickle, which can run code when it is read, and is never unpickled",
                found="what torch.save writes",
                remedy=_REMEDY,
            ) from None
        raise UnitError("the embedding is not in the safetensors format", found=str(error), remedy=_REMEDY) from error


_REMEDY = "send the safetensors in base64 that /controlnet/detect gives, or the picture as image"
