"""Which host this is, by what it has: never by a version's name."""

from __future__ import annotations

from importlib.util import find_spec

from .a1111 import A1111Host
from .base import Host
from .forge import ForgeHost
from .sdnext import SDNextHost


def found_host() -> Host:
    """The host that has loaded us."""
    if find_spec("modules_forge"):
        return ForgeHost()
    return SDNextHost() if find_spec("modules.control") else A1111Host()
