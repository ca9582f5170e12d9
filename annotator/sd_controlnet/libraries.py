"""Whether the Python packages that a preprocessor runs on are there, found out without importing any of them."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from .spec import AnnotatorError, Library

_PRIVATE = "sd_controlnet_aux"


class FolderFinder:
    """Finds top-level packages, and their metadata, in one folder.

    Last on `sys.meta_path`, so that what is installed elsewhere is used first. Not on `sys.path`, which hosts put back
    as it was when they have loaded an extension.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """The specification of a package of the folder, else None."""
        return None if path is not None else PathFinder.find_spec(name, [self.folder], target)

    def find_distributions(self, context: Any = None) -> Any:
        """What is installed in the folder, for importlib.metadata."""
        from importlib.metadata import DistributionFinder, MetadataPathFinder

        name = getattr(context, "name", None)
        return MetadataPathFinder.find_distributions(DistributionFinder.Context(name=name, path=[self.folder]))


def use_folder(folder: Path) -> None:
    """Find packages in `folder` too, after everything else that is installed, if there is such a folder."""
    known = any(getattr(finder, "folder", None) == str(folder) for finder in sys.meta_path)
    if folder.is_dir() and not known:
        sys.meta_path.append(FolderFinder(folder))


def problem(libraries: Iterable[Library]) -> str:
    """Why the first unusable one of `libraries` cannot be used and what to do, as a clause; "" if all can."""
    for library in libraries:
        purpose, command = f" ({library.why})" if library.why else "", _command(library)
        if not _is_there(library.module):
            return f"it needs the Python package {library.requirement}{purpose}, which is not installed: {command}"
        # reading a version takes as long as ten preprocessors' specifications: only where some will not do
        found = _version(library.package or library.module) if library.minimum or library.below else ""
        if found and not _within(found, library):
            return f"it needs {library.requirement}{purpose}, and {found} is installed: {command}"
    return ""


def _command(library: Library) -> str:
    """Alone: what it needs of others is in the list too, and theirs would change packages of the WebUI."""
    return f'pip install --no-deps "{library.requirement}"'


@cache
def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@cache
def _version(package: str) -> str:
    """The installed version; "" where the package has no metadata."""
    from importlib import metadata

    try:
        installed = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return ""
    # its line alone: `installed.version` parses the whole description with it
    text = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
    version = re.search(r"^Version: *(\S+)", text, re.MULTILINE)
    return version[1] if version else ""


def _within(found: str, library: Library) -> bool:
    version = _numbers(found)
    return (not library.minimum or version >= _numbers(library.minimum)) and (
        not library.below or version < _numbers(library.below)
    )


def _numbers(version: str) -> tuple[int, ...]:
    """The release part of a version; suffixes such as "rc1" and "+cpu" do not matter to anybody here."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else (0,)


def controlnet_aux(path: str, instead: Mapping[str, Any] | None = None) -> ModuleType:
    """The module `path` of the package controlnet_aux ("hed", "open_pose.model"), and nothing else of it.

    instead: what the module is given when it imports one of these names, in the place of a package that is not there.

    Its root `__init__` imports all of its detectors (4 s), with torchvision, timm and mediapipe, and fails with current
    releases of the last. So its folder is mounted under a private name, and the `__init__` of the folders on the way to
    `path` does not run. Raises `AnnotatorError` where the package, or what the module itself imports, is missing.
    """
    found = importlib.util.find_spec("controlnet_aux")
    if found is None or not found.submodule_search_locations:
        raise AnnotatorError(
            "the Python package controlnet_aux is not installed", remedy="pip install --no-deps controlnet-aux"
        )
    folder, name = Path(next(iter(found.submodule_search_locations))), _PRIVATE
    for step in ("", *path.split(".")[:-1]):
        folder, name = (folder / step, f"{name}.{step}") if step else (folder, name)
        if name not in sys.modules:
            package = ModuleType(name)
            package.__path__ = [str(folder)]
            sys.modules[name] = package
    try:
        return _imported(f"{_PRIVATE}.{path}", instead or {})
    except ImportError as error:
        raise AnnotatorError(
            f"the part {path} of the Python package controlnet_aux cannot be imported",
            found=f"{type(error).__name__}: {error}",
            remedy="install what it names, or reinstall controlnet-aux",
        ) from error


def _imported(name: str, instead: Mapping[str, Any]) -> ModuleType:
    """The module `name`, whose own imports of `instead`, and nobody else's, find what is given for them."""
    spec = importlib.util.find_spec(name) if instead and name not in sys.modules else None
    if spec is None or spec.loader is None:
        return importlib.import_module(name)

    def find(wanted: str, *rest: Any, **options: Any) -> Any:
        return instead[wanted] if wanted in instead else builtins.__import__(wanted, *rest, **options)

    module = importlib.util.module_from_spec(spec)
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": find}
    spec.loader.exec_module(module)
    return sys.modules.setdefault(name, module)
