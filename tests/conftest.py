"""What every test gets: our packages importable by their plain names, few threads, and no network."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

for _name, _value in {
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}.items():
    os.environ.setdefault(_name, _value)

# A machine that is busy with other things is no fault of a test's.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# First on the path, as `launch.py` does: `lib_controlnet`, `annotator` and `standalone` are folders there.
sys.path[:0] = [path for path in (str(ROOT),) if path not in sys.path]


class NetworkUseError(AssertionError):
    """A test reached for an address outside this machine."""


def _is_local(address: Any) -> bool:
    """Whether a socket address is a path or a loopback address; names other than localhost are not."""
    if not isinstance(address, tuple):
        return True  # AF_UNIX
    host = str(address[0])
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Make every connection and look-up that leaves the machine raise `NetworkUseError`."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded(method: Any) -> Any:
        def call(self: socket.socket, address: Any) -> Any:
            if not _is_local(address):
                raise NetworkUseError(f"connection to {address}")
            return method(self, address)

        return call

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and name != "0.0.0.0" and not _is_local((name,)):
            raise NetworkUseError(f"look-up of {name}")
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(connect))
        patch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
        patch.setattr(socket, "getaddrinfo", look_up)
        yield


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> None:
    """Two threads at most, or one where `.ci/run` has two parts side by side: small tensors are slower with more."""
    try:
        import torch
    except ModuleNotFoundError:
        return
    torch.set_num_threads(min(int(os.environ["OMP_NUM_THREADS"]), 2, os.cpu_count() or 1))
