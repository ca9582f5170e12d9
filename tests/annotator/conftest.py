"""Files of random weights that several tests read: some are hundreds of megabytes, and made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `random_runtime` keeps what it made; nobody changes it."""
    return tmp_path_factory.mktemp("weights")
