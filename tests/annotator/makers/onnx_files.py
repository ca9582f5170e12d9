"""ONNX files whose networks always answer the same, written byte by byte: the package onnx is not needed for that.

The fields are those of onnx.proto (github.com/onnx/onnx).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

_FLOAT = 1


def _number(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded, value = encoded + bytes([value & 127 | 128]), value >> 7
    return encoded + bytes([value])


def _field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return _number(number << 3) + _number(content)
    return _number(number << 3 | 2) + _number(len(content)) + content


def _shaped(name: str, shape: Sequence[int]) -> bytes:
    sides = b"".join(_field(1, _field(1, side)) for side in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, sides)))


def write(file: Path, shape: Sequence[int], answers: Sequence[np.ndarray]) -> None:
    """A network that takes `shape` and gives `answers`."""
    graph = _field(2, b"constant") + _field(11, _shaped("picture", shape))
    for index, answer in enumerate(answers):
        kept, given = f"kept{index}", f"given{index}"
        sides = b"".join(_field(1, side) for side in answer.shape)
        tensor = sides + _field(2, _FLOAT) + _field(8, kept.encode()) + _field(9, answer.astype("<f4").tobytes())
        graph += _field(1, _field(1, kept.encode()) + _field(2, given.encode()) + _field(4, b"Identity"))
        graph += _field(5, tensor) + _field(12, _shaped(given, answer.shape))
    file.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(2, 13)))


def yolox(file: Path) -> None:
    """Two people and a dog, wherever it looks."""
    answer = np.full((1, 8400, 85), -9.0, np.float32)
    answer[..., 4:] = 0
    # in cells of the coarsest grid, the last 400 of the answer: column, row, width, height, class
    for column, row, wide, high, kind in ((5, 6, 8, 12, 0), (14, 7, 9, 13, 0), (10, 10, 12, 8, 16)):
        place = 8000 + row * 20 + column
        answer[0, place, :5] = (0.5, 0.5, np.log(wide), np.log(high), 0.9)
        answer[0, place, 5 + kind] = 0.8
    write(file, (1, 3, 640, 640), [answer])


def simcc(file: Path, points: int, size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    answers = [random.random((1, points, side * 2)) * random.random((1, points, 1)) for side in size]
    write(file, (1, 3, size[1], size[0]), answers)


MAKERS = {
    "yolox_l.onnx": yolox,
    "dw-ll_ucoco_384.onnx": partial(simcc, points=133, size=(288, 384)),
    "rtmpose-m_simcc-ap10k_pt-aic-coco_210e-256x256-7a041aa1_20230206.onnx": partial(simcc, points=17, size=(256, 256)),
}
