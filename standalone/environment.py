"""Making `modules` importable, and taking it away again without a trace."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

STANDALONE = Path(__file__).resolve().parent
REPOSITORY = STANDALONE.parent
OWN = {"lib_controlnet", "annotator", "standalone", "tests", "modules"}
"""Packages that stay when a host goes (except those of the host itself, which have their own rule)."""
HOSTS = ("modules", "standalone.forge", "modules_forge", "backend", "ldm_patched")
"""What a host consists of, or lets extensions import."""


def _names(package: str) -> list[str]:
    return [x for x in sys.modules if x == package or x.startswith(package + ".")]


class Environment:
    """`sys.path` and `sys.modules` while a host lives.

    One host at a time in a process, unless the next one asks for it: then the older one is out of reach until the
    younger one has left, as on a stack.
    """

    current: Environment | None = None

    def __init__(self) -> None:
        self._shadowed: dict[str, ModuleType] = {}
        self._paths: list[str] = []
        self._before: set[str] = set()
        self._older: Environment | None = None

    def enter(self, nested: bool = False) -> None:
        """Put `modules` (and the repository's packages) on the path; another `modules` is kept for later."""
        if Environment.current is not None and not nested:
            raise RuntimeError("a host runs in this process already; close it first")
        self._older = Environment.current
        Environment.current = self
        self._shadowed = {x: sys.modules.pop(x) for package in HOSTS for x in _names(package)}
        self._paths = [str(STANDALONE), str(REPOSITORY)]
        for path in reversed(self._paths):
            sys.path.insert(0, path)
        self._before = set(sys.modules)

    def leave(self, extension_dirs: Sequence[Path]) -> None:
        """Remove `modules` and what the extensions imported; put back what was there before."""
        if Environment.current is not self:
            raise RuntimeError("a younger host runs in this process; close that one first")
        for top in self._extension_packages(extension_dirs).union(HOSTS):
            for name in _names(top):
                del sys.modules[name]
        sys.modules.update(self._shadowed)
        for path in self._paths:
            if path in sys.path:
                sys.path.remove(path)
        Environment.current = self._older

    def _extension_packages(self, extension_dirs: Sequence[Path]) -> set[str]:
        roots = [x.resolve() for x in extension_dirs]
        libraries = [Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")]
        found: set[str] = set()
        for name in set(sys.modules) - self._before:
            module = sys.modules[name]
            own = vars(module)  # some modules answer every attribute
            places = [own.get("__file__"), *own.get("__path__", [])]
            files = [Path(x).resolve() for x in places if isinstance(x, str)]
            # The environment may lie inside an extension's folder (.venv); libraries are nobody's extension.
            own = [file for file in files if not any(library in (file, *file.parents) for library in libraries)]
            if any(root in file.parents for file in own for root in roots):
                found.add(name.split(".")[0])
        return found - OWN
