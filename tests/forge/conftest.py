"""The embedded host as each of the Forge family, and the pictures that it makes as AUTOMATIC1111."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from standalone import boot
from standalone.forge.variants import VARIANTS
from tests.hosts.conftest import Host
from tests.hosts.conftest import files as files

from .jobs import made

NAMES = ("one", "two", "wide")


@contextmanager
def running(files: Path, data: Path, behaving_as: str | None) -> Iterator[Host]:
    """A host with the checkpoints of `files`."""
    checkpoints = [files / "Stable-diffusion" / f"{name}.safetensors" for name in NAMES]
    settings: Any = {
        "argv": ["--ckpt-dir", str(files / "Stable-diffusion")],
        "data_dir": data,
        "api": False,
        "ui": False,
    }
    with boot(checkpoints[0], files / "ControlNet", nested=True, behaving_as=behaving_as, **settings) as app:
        yield Host(app, checkpoints)


@pytest.fixture(scope="package")
def expected(files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[NDArray[np.uint8]]]:
    """The pictures of the jobs in AUTOMATIC1111."""
    with running(files, tmp_path_factory.mktemp("data"), None) as host:
        return made(host)


@pytest.fixture(scope="package", params=VARIANTS)
def host(request: Any, expected: Any, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host of the family. `expected` first: one host at a time in a process."""
    with running(files, tmp_path_factory.mktemp("data"), request.param) as app:
        yield app
