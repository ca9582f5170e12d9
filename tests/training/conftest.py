"""A random checkpoint and a folder of pairs, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from lib_controlnet.training import planning, room
from tests.standalone.tiny_checkpoint import write

from .tiny import make_pairs


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session", autouse=True)
def counted_once() -> Iterator[None]:
    """What encoding and drawing take follows from sizes alone, and counting it is half of a tiny training."""
    known: dict[Any, int] = {}

    def remembering(count: Callable[..., int]) -> Callable[..., int]:
        def counted(*given: Any) -> int:
            asked = [_outline(one) for one in given]
            key = count.__name__, *asked
            if key not in known:
                known[key] = count(*given)
            return known[key]

        return counted

    with pytest.MonkeyPatch.context() as patched:
        for name in ("count_vae", "count_sampling"):
            patched.setattr(room, name, remembering(getattr(room, name)))
            patched.setattr(planning, name, getattr(room, name))
        yield


def _outline(thing: Any) -> Any:
    """All of a network that a count can depend on."""
    network = getattr(thing, "model", thing)
    if not isinstance(network, nn.Module):
        return thing
    weights = tuple((name, tuple(weight.shape), weight.dtype) for name, weight in network.named_parameters())
    return type(network), weights


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of 32 channels are slower with two, far slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    """accelerate keeps device and precision for a process; each test is one of its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return make_pairs(tmp_path / "pairs")
