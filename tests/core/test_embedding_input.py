"""Embeddings that callers hand in: what is read, and what is refused and why."""

from __future__ import annotations

import base64
import io
import pickle
from typing import Any

import pytest
import safetensors.torch
import torch

from lib_controlnet.core.embedding_input import read_embeddings, stacked
from lib_controlnet.core.errors import UnitError


def sent(**tensors: Any) -> str:
    return base64.b64encode(safetensors.torch.save(tensors)).decode()


def torch_saved() -> str:
    buffer = io.BytesIO()
    torch.save(torch.ones(2), buffer)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("prefix", ["", "data:application/octet-stream;base64,"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_what_detect_gives_is_read(prefix: str, dtype: torch.dtype) -> None:
    whole = torch.randn(1, 8).to(dtype)
    for given in (prefix + sent(a=whole), [prefix + sent(a=whole)], {"a": whole}, [{"a": whole}]):
        (table,) = read_embeddings(given)
        assert torch.equal(table["a"], whole.float())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch_saved(), "never unpickled"),
        (base64.b64encode(pickle.dumps({"a": 1})).decode(), "never unpickled"),
        ("!!!", "not base64"),
        ("AAAA", "safetensors"),
        (base64.b64encode(safetensors.torch.save({"a": torch.ones(1, 8)})[:-3]).decode(), "safetensors"),
        (sent(a=torch.ones(8)), "one row a picture"),
        (sent(a=torch.ones(1, 8, dtype=torch.int64)), "one row a picture"),
        (sent(a=torch.full((1, 8), float("nan"))), "infinite"),
        (3.0, "no embedding"),
        ({}, "no embeddings"),
        ([sent(a=torch.ones(1, 2))] * 101, "too many"),
    ],
)
def test_what_is_none_is_refused(given: object, said: str) -> None:
    with pytest.raises(UnitError, match=said):
        read_embeddings(given)


def test_pictures_lie_one_behind_the_other() -> None:
    first, second = (
        {"a": torch.full((1, 2), value), "zero_hidden_state": torch.zeros(1, 3, 2)} for value in (1.0, 2.0)
    )
    whole = stacked([first, second])
    assert whole["a"].tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert whole["zero_hidden_state"].shape == (1, 3, 2), "it stands for no picture, however many there are"
    with pytest.raises(UnitError, match="several kinds"):
        stacked([first, {"b": torch.ones(1, 2)}])


def test_a_headers_length_is_no_pickles_mark() -> None:
    """Of 128 and 384 bytes the first byte is that with which a pickle begins."""
    starts = set[int]()
    for length in range(1, 300, 8):
        name = "n" * length
        content = safetensors.torch.save({name: torch.ones(1, 4)})
        starts.add(content[0])
        (table,) = read_embeddings(base64.b64encode(content).decode())
        assert list(table) == [name]
    assert 0x80 in starts
