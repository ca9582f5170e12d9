"""What a control model's file says of itself, read without loading it: for the page, before anything is generated."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..core.errors import ControlNetError
from ..families.base import BaseModel, ControlFamily, Sheet
from ..families.registry import find_family
from ..loading.canonical import canonical
from ..loading.detect import describe_kind, kind_of
from ..loading.reader import read_weights
from ..loading.version import FileVersion, file_version

log = logging.getLogger("ControlNet")


@dataclass(frozen=True)
class Facts:
    """family: its id, "" where none can use the file. kind: in words. size: bytes. problem: why it cannot be used."""

    family: str
    kind: str
    size: int
    sheet: Sheet | None = None
    problem: str = ""
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    """See `ControlFamily.shares`."""

    def mismatch(self, base: BaseModel) -> str:
        """Why the model cannot control `base`, in a sentence; "" where it can, or where only loading it will tell."""
        if self.problem:
            return self.problem
        if self.sheet is None or self.sheet.fits(base):
            return ""
        return f"it was made for {self.sheet.made_for}, and the checkpoint is {base.kind}"


class FactReader:
    """Facts of files, kept until the file changes."""

    def __init__(self, families: list[ControlFamily]) -> None:
        self._families = families
        self._known: dict[tuple[Path, FileVersion], Facts] = {}

    def read(self, path: Path) -> Facts:
        """The facts of a file; a file that cannot be used has its reason among them."""
        try:
            key, size = (path, file_version(path)), path.stat().st_size
        except OSError as error:
            return Facts("", "a missing file", 0, problem=f"the file cannot be read: {error.strerror or error}")
        if key not in self._known:
            self._known[key] = self._read(path, size)
        return self._known[key]

    def _read(self, path: Path, size: int) -> Facts:
        try:
            file = read_weights(path, shapes_only=True)
            weights: Mapping[str, Tensor] = canonical(file.weights)
            family = find_family(weights, self._families)
            kind, known = describe_kind(file.weights.keys()), kind_of(file.weights.keys())
            if family is None and known is not None and known.backbone:
                return Facts("", kind, size, problem=f"it controls {known.backbone}, not Stable Diffusion")
            if family is None:
                return Facts("", kind, size, problem=f"it is {kind}, which this version cannot use")
            inspect = getattr(family, "inspect", None)
            sheet = None if inspect is None else inspect(path, weights)
            return Facts(family.id, kind, size, sheet, shares=family.shares)
        except ControlNetError as error:
            return Facts("", "a damaged or foreign file", size, problem=f"{error.problem} ({error.found})")
        except Exception as error:  # one file that nobody thought of must not cost the whole table
            log.exception("%s cannot be understood", path)
            return Facts("", "a damaged or foreign file", size, problem=f"it cannot be understood: {error}")
