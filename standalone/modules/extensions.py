"""The installed extensions: folders given at start and folders below the extensions directory."""

from __future__ import annotations

import configparser
import re
from collections.abc import Sequence
from pathlib import Path

from modules import errors, paths, shared
from modules.shared_cmd_options import cmd_opts

extensions: list[Extension] = []
extra_dirs: list[Path] = []
"""Extension roots given at start (in a checkout: the repository itself)."""


class ExtensionMetadata:
    """`metadata.ini` of an extension: order of scripts and of callbacks."""

    def __init__(self, path: str, canonical_name: str) -> None:
        self.config = configparser.ConfigParser()
        self.canonical_name = canonical_name
        try:
            self.config.read(Path(path) / "metadata.ini", encoding="utf-8")
        except configparser.Error:
            errors.report(f"Error reading metadata.ini of extension {canonical_name}", exc_info=True)

    def words(self, field: str, *sections: str) -> list[str]:
        """Values of `field` in the first of `sections` that has it, split at commas and blanks."""
        for section in sections:
            if self.config.has_option(section, field):
                return [x.lower() for x in re.split(r"[,\s]+", self.config.get(section, field)) if x]
        return []

    def callback_order(self) -> list[tuple[str, list[str], list[str]]]:
        """(callback name, before, after) of the sections that start with this extension's own name."""
        own = [x for x in self.config.sections() if x.startswith(f"callbacks/{self.canonical_name}/")]
        return [(x.removeprefix("callbacks/"), self.words("Before", x), self.words("After", x)) for x in own]


class Extension:
    def __init__(self, name: str, path: str, enabled: bool = True, is_builtin: bool = False) -> None:
        self.name = name
        self.path = path
        self.enabled = enabled
        self.is_builtin = is_builtin
        self.canonical_name = name.lower()
        self.metadata = ExtensionMetadata(path, self.canonical_name)
        self.remote: str | None = None
        self.branch: str | None = None
        self.commit_hash = ""
        self.commit_date: int | None = None
        self.version = ""

    def list_files(self, subdir: str, extension: str) -> list[tuple[str, str, str]]:
        """(extension root, file name, path) of the files with this suffix in `subdir`, sorted."""
        folder = Path(self.path) / subdir
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        return [(self.path, x.name, str(x)) for x in files if x.suffix.lower() == extension and x.is_file()]


def active() -> list[Extension]:
    if cmd_opts.disable_all_extensions or shared.opts.disable_all_extensions == "all":
        return []
    if cmd_opts.disable_extra_extensions or shared.opts.disable_all_extensions == "extra":
        return [x for x in extensions if x.enabled and x.is_builtin]
    return [x for x in extensions if x.enabled]


def _folders() -> list[tuple[Path, bool]]:
    found = [(x, False) for x in extra_dirs]
    for root, builtin in ((paths.extensions_builtin_dir, True), (paths.extensions_dir, False)):
        folder = Path(root)
        children = sorted(folder.iterdir()) if folder.is_dir() else []
        found += [(x, builtin) for x in children if x.is_dir()]
    return found


def list_extensions() -> None:
    """Find all extensions again; the second of two with one canonical name is discarded and reported."""
    extensions.clear()
    known: set[str] = set()
    for folder, builtin in _folders():
        name = folder.resolve().name
        if name.lower() in known:
            errors.report(f'Duplicate canonical name "{name.lower()}" found in extension {folder}; discarded')
            continue
        known.add(name.lower())
        enabled = name not in shared.opts.disabled_extensions
        extensions.append(Extension(name, str(folder), enabled, builtin))


def find_extension(filename: str) -> Extension | None:
    """The extension that owns a file."""
    file = Path(filename).resolve()
    for extension in extensions:
        if Path(extension.path).resolve() in file.parents:
            return extension
    return None


def configure(folders: Sequence[Path]) -> None:
    extra_dirs[:] = list(folders)
