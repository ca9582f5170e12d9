"""A random checkpoint and a folder of pairs, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.standalone.tiny_checkpoint import write

from .tiny import make_pairs


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("base"))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return make_pairs(tmp_path / "pairs")
