"""Refuses ONNX files that name other files: onnxruntime would read those into the network, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .spec import AnnotatorError

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_DEEPEST = 64
# Messages of onnx.proto by the numbers of their fields that hold messages; all that a tensor can lie in.
_INNER: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {},
}


def refuse_external_data(path: Path) -> None:
    """Raises `AnnotatorError` for a network whose weights lie in other files, and for a file that is no ONNX at all."""
    try:
        content = path.read_bytes()
        if not content:
            raise ValueError("the file is empty")
        outside = _external(content, 0, len(content), "model", 0)
    except (OSError, ValueError, IndexError) as error:
        raise AnnotatorError(
            f"{path.name} cannot be read: it is damaged or truncated",
            found=str(error),
            remedy=f"delete {path} and get it again",
        ) from error
    if outside:
        raise AnnotatorError(
            f"{path.name} takes weights from other files of this computer, which is not allowed",
            remedy=f"delete {path} and get the file that is whole in itself",
        )


def _external(content: bytes, start: int, end: int, kind: str, depth: int) -> bool:
    if depth > _DEEPEST:
        raise ValueError(f"graphs in graphs, more than {_DEEPEST} deep")
    for field, value, first, last in _fields(content, start, end):
        if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value)):
            return True
        inner = _INNER[kind].get(field)
        if inner and last > first and _external(content, first, last, inner, depth + 1):
            return True
    return False


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, value of an integer, start and end of a message or text) of each field of a protobuf message."""
    place = start
    while place < end:
        key, place = _integer(content, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _integer(content, place)
            yield number, value, place, place
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        elif wire == 2:
            size, first = _integer(content, place)
            place = first + size
            if place > end:
                raise ValueError(f"a field of {size} bytes at {first} ends behind its message")
            yield number, 0, first, place
        else:
            raise ValueError(f"no protobuf at byte {place}")


def _integer(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError(f"no protobuf at byte {place}")
