"""Makes our modules importable under the names by which other extensions import sd-webui-controlnet's.

They are found last: whatever a host or another extension brings under such a name goes first, and nothing is made
before somebody imports it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

MARK = "sd_controlnet_alias"
"""An attribute of what is ours, in every copy of this code."""

FOLDER = "sd-webui-controlnet"
"""The folder's name that is written into other extensions."""

Make = Callable[[ModuleType], None]


class Names:
    """Full names -> our modules, each made when first imported; several names lead to one module.

    `modules`: last part of a name -> what fills the module. `others`: folders in which other extensions' and the host's
    own modules lie, whose files go first although they may be loaded later.
    """

    def __init__(self, root: Path, modules: Mapping[str, Make], others: Callable[[], Iterable[Path]]) -> None:
        self._others = others
        self._makers = modules
        self._made: dict[str, ModuleType] = {}
        self._sources = {**_script_names(root, modules), **_package_names(modules)}

    def module(self, name: str) -> ModuleType:
        """The module for one of the names' last parts."""
        if name not in self._made:
            module = ModuleType(name)
            setattr(module, MARK, True)
            self._made[name] = module
            self._makers[name](module)
        return self._made[name]

    def install(self) -> None:
        """Answers imports from now on, instead of an earlier one of ours."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if not getattr(finder, MARK, False)]
        finder = _Finder(self)
        sys.meta_path.append(finder)
        ours = list(self._made.values())
        for name, module in list(sys.modules.items()):
            if getattr(module, MARK, False) and module not in ours:
                del sys.modules[name]
        for name in (name for name, source in self._sources.items() if source == "controlnet"):
            spec = None if name in sys.modules else finder.find_spec(name, None)
            if spec is not None:  # put there at once: a file of this name exists, which must not run twice
                sys.modules[name] = importlib.util.module_from_spec(spec)

    def offers(self, name: str) -> bool:
        """Whether a full name leads to us: it is one of ours, and no other extension brings a file for it."""
        if name not in self._sources:
            return False
        if name.startswith("lib_controlnet"):
            return "modules_forge" not in sys.modules and not self._others_have(name)
        return not name.startswith("scripts.") or not self._others_have(name)

    def source(self, name: str) -> str:
        """The part by which `module` knows a full name; "" for a package that is only there to hold others."""
        return self._sources[name]

    def _others_have(self, name: str) -> bool:
        file = Path(*name.split("."))
        held = (file.with_suffix(".py"), file / "__init__.py")
        return any((folder / path).is_file() for folder in self._others() for path in held)


def _script_names(root: Path, modules: Iterable[str]) -> dict[str, str]:
    """`scripts.X` and, for each way to our folder, `extensions.<folder>.scripts.X`, with the packages in between."""
    names: dict[str, str] = {"scripts": "", "extensions": ""}
    folders = {("extensions", FOLDER)}
    if root.parent.name in ("extensions", "extensions-builtin"):
        folders.add((root.parent.name, root.name))
    roots = ["", *(f"{parent}.{folder}." for parent, folder in sorted(folders))]
    for prefix in roots:
        if prefix:
            parent, folder = prefix[:-1].split(".", 1)
            names.update({parent: "", f"{parent}.{folder}": "", f"{prefix}scripts": ""})
            names[f"{prefix}annotator"], names[f"{prefix}annotator.util"] = "", "annotator_util"
        names[f"{prefix}scripts.controlnet_ui"] = ""
        names[f"{prefix}scripts.controlnet_ui.controlnet_ui_group"] = "controlnet_ui_group"
        names.update({f"{prefix}scripts.{name}": name for name in modules if name in SCRIPTS})
    return names


def _package_names(modules: Iterable[str]) -> dict[str, str]:
    names = {
        "internal_controlnet": "",
        "internal_controlnet.external_code": "external_code",
        "internal_controlnet.args": "external_code",
        "lib_controlnet": "",
        "lib_controlnet.external_code": "external_code",
        "lib_controlnet.global_state": "global_state",
        "lib_controlnet.enums": "enums",
        "annotator": "",
        "annotator.util": "annotator_util",
        "annotator.uniformer": "annotator_uniformer",
        "annotator.oneformer": "annotator_oneformer",
    }
    return {name: source for name, source in names.items() if source == "" or source in modules}


SCRIPTS = frozenset(
    (
        "external_code",
        "hook",
        "cldm",
        "batch_hijack",
        "global_state",
        "enums",
        "processor",
        "utils",
        "supported_preprocessor",
        "logging",
        "controlnet",
        "controlnet_version",
    )
)
"""Modules of sd-webui-controlnet's folder `scripts` that others import."""


class _Finder(MetaPathFinder):
    def __init__(self, names: Names) -> None:
        self._names = names
        setattr(self, MARK, True)

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if not self._names.offers(fullname):
            return None
        source = self._names.source(fullname)
        return ModuleSpec(fullname, _Loader(self._names, source), is_package=not source)


class _Loader(Loader):
    def __init__(self, names: Names, source: str) -> None:
        self._names, self._source = names, source

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        if self._source:
            return self._names.module(self._source)
        package = ModuleType(spec.name)
        setattr(package, MARK, True)
        return package

    def exec_module(self, module: ModuleType) -> None:
        """The module has been filled when it was made; a reload changes nothing."""
