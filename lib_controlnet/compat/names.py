"""Makes our modules importable under the names by which other extensions import sd-webui-controlnet's.

They are found last: whatever a host or another extension brings under such a name goes first, and nothing is made
before somebody imports it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

MARK = "sd_controlnet_alias"
"""An attribute of what is ours, in every copy of this code."""

FOLDER = "sd-webui-controlnet"
"""The folder's name that is written into other extensions."""

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

PACKAGES = {
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
"""Full name outside `scripts` -> the module of ours; "" for a package that is only there to hold others."""

Fill = Callable[[str, ModuleType], None]
"""(name of one of our modules, the empty module): puts into it what it offers."""


class Names:
    """Full names -> our modules, each made when first imported; several names lead to one module.

    `others`: folders in which other extensions' and the host's own modules lie, whose files go first although they may
    be loaded later.
    """

    def __init__(self, root: Path, fill: Fill, others: Callable[[], Iterable[Path]]) -> None:
        self._others = others
        self._fill = fill
        self._made: dict[str, ModuleType] = {}
        self._sources = {**_script_names(root), **PACKAGES}

    def module(self, name: str) -> ModuleType:
        """The module for one of the names' last parts."""
        if name not in self._made:
            module = ModuleType(name)
            setattr(module, MARK, True)
            self._made[name] = module
            self._fill(name, module)
        return self._made[name]

    def promise(self, name: str) -> ModuleType:
        """The same, not filled before somebody looks into it."""
        if name not in self._made:
            module = self._made[name] = ModuleType(name)

            def look(attribute: str) -> Any:  # the import system asks for __path__ and its kind
                if attribute.startswith("__") and attribute != "__all__":
                    raise AttributeError(attribute)
                del vars(module)["__getattr__"]
                self._fill(name, module)
                return getattr(module, attribute)

            vars(module).update({MARK: True, "__getattr__": look})
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
                self.promise("controlnet")
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


def _script_names(root: Path) -> dict[str, str]:
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
        names.update({f"{prefix}scripts.{name}": name for name in SCRIPTS})
    return names


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
