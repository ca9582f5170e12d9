"""Random weights for every network, in the files that the preprocessors look for.

A module beside this one has `MAKERS`: by weight file's name, what writes such a file into a folder. The networks are
built from the libraries' own classes, never from ours, at their real sizes, or small where a file says its sizes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

from annotator.sd_controlnet.spec import PreprocessorSpec, Runtime

Maker = Callable[[Path], None]


def _found() -> dict[str, Maker]:
    makers: dict[str, Maker] = {}
    for module in pkgutil.iter_modules(__path__):
        makers.update(importlib.import_module(f"{__name__}.{module.name}").MAKERS)
    return makers


MAKERS: dict[str, Maker] = _found()


def can_make(spec: PreprocessorSpec) -> bool:
    """Whether random weights can be made for all files of this preprocessor."""
    return all(weight.name in MAKERS for weight in spec.weights)


def random_runtime(spec: PreprocessorSpec, folder: Path) -> Runtime:
    """A runtime whose weight folder holds random weights for `spec`; files that are there already are kept."""
    for weight in spec.weights:
        file = folder / weight.folder / weight.name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            MAKERS[weight.name](file)
    return Runtime(weight_folders=(folder,))
