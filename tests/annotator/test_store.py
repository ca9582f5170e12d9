"""Loaded networks: shared, bounded in bytes, forgotten on demand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from annotator.sd_controlnet.store import NetworkStore


def sized(nbytes: int) -> Any:
    return SimpleNamespace(nbytes=nbytes)


def test_a_network_is_made_once() -> None:
    store, made = NetworkStore(), []
    for _ in range(2):
        network = store.get("a", lambda: made.append(1) or sized(1))
    assert len(made) == 1
    assert store.get("a", lambda: pytest.fail("made again")) is network


def test_the_least_used_goes_when_they_become_too_large() -> None:
    store = NetworkStore(limit=10)
    for key in ("a", "b"):
        store.get(key, lambda: sized(4))
    store.get("a", lambda: sized(0))
    store.get("c", lambda: sized(4))
    assert store.size == 8
    remade: list[str] = []
    store.get("a", lambda: pytest.fail("a was used last"))
    store.get("b", lambda: remade.append("b") or sized(1))
    assert remade == ["b"]


def test_one_network_may_be_larger_than_the_limit() -> None:
    store = NetworkStore(limit=10)
    store.get("small", lambda: sized(4))
    large = store.get("large", lambda: sized(40))
    assert store.get("large", lambda: pytest.fail("made again")) is large
    assert store.size == 40


def test_the_size_of_a_module_is_that_of_its_weights() -> None:
    store = NetworkStore()
    store.get("layer", lambda: nn.Linear(3, 5, dtype=torch.float16))
    assert store.size == (3 * 5 + 5) * 2
    store.clear()
    assert store.size == 0


def test_a_failure_keeps_nothing() -> None:
    store = NetworkStore()

    def fail() -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        store.get("a", fail)
    assert store.get("a", lambda: "made") == "made"
