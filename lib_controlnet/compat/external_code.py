"""`external_code`: the module through which other extensions use a ControlNet extension.

It is made for one set of services and put under the names by which the peers' module is imported, if nobody else
holds them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import catalogue
from ..core.hints import inpaint_display
from ..core.images import read_rgb
from ..core.modes import ResizeMode as CoreResizeMode
from ..core.resize import pixel_perfect_resolution as core_resolution
from ..engine.services import Services
from . import enums, script_args, unit
from .preprocessor import PreprocessorParameter, bound_to

NAMES = (
    "scripts.external_code",
    "scripts.supported_preprocessor",
    "extensions.sd-webui-controlnet.scripts.external_code",
    "lib_controlnet.external_code",
)
"""The names in the wild; the second has sd-webui-controlnet's folder name written into other extensions."""

_MARK = "sd_controlnet_alias"


def register_aliases(services: Services, unit_count: Callable[[], int]) -> list[str]:
    """Makes the module importable under the names of NAMES that nobody holds; returns those.

    Another extension that brings such a module may be loaded after us, so its file counts, not only what is imported.
    """
    module = make_module(services, unit_count)
    taken = [name for name in NAMES if not _belongs_to_others(name)]
    for name in taken:
        sys.modules[name] = module
    return taken


def make_module(services: Services, unit_count: Callable[[], int]) -> ModuleType:
    """The module, bound to services and to the configured number of units."""
    module = ModuleType("external_code", __doc__)
    functions = _Functions(services, unit_count)
    plain = (
        unit.ControlNetUnit,
        enums.ControlMode,
        enums.ResizeMode,
        enums.HiResFixOption,
        enums.InputMode,
        enums.BatchOption,
        enums.PuLIDMode,
        enums.ControlNetUnionControlType,
        enums.ControlModelType,
        unit.resize_mode_from_value,
        script_args.is_cn_script,
        script_args.find_cn_script,
        script_args.get_all_units,
        script_args.to_processing_unit,
        get_api_version,
        get_all_units_in_processing,
        get_all_units_from,
        get_single_unit_from,
        visualize_inpaint_mask,
        pixel_perfect_resolution,
        to_base64_nparray,
    )
    plain = (*plain, PreprocessorParameter, bound_to(services.annotators))
    bound = [getattr(functions, name) for name in dir(functions) if not name.startswith("_")]
    for item in (*plain, *bound):
        setattr(module, item.__name__, item)
    setattr(module, _MARK, True)
    return module


def get_api_version() -> int:
    """The version of this interface."""
    return 3


def get_all_units_in_processing(p: Any) -> list[Any]:
    """The units of a processing object, as objects that may be changed in place.

    The panel's widgets are turned into units here and put into the arguments, so that a change takes effect.
    """
    arguments = getattr(p, "script_args_value", None)
    units = script_args.get_all_units(p.scripts, p.script_args if arguments is None else arguments)
    if units:
        script_args.put_units(p, lambda runner, args: script_args.update_cn_script(runner, args, units, len(units)))
    return units


def get_all_units_from(script_args_: Sequence[Any]) -> list[Any]:
    """The units among the ControlNet script's own arguments."""
    return script_args.units_in(script_args_)


def get_single_unit_from(script_args_: Sequence[Any], index: int = 0) -> Any | None:
    """The unit of that index among the ControlNet script's own arguments; None where there is none."""
    units = script_args.units_in(script_args_)
    return units[index] if 0 <= index < len(units) else None


def visualize_inpaint_mask(img: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 4) with its mask shown half transparent; everything else unchanged."""
    return inpaint_display(img) if img.ndim == 3 and img.shape[2] == 4 else img


def pixel_perfect_resolution(image: NDArray[Any], target_H: int, target_W: int, resize_mode: Any) -> int:
    """The preprocessor resolution that fits a target size; the argument names are the peers'."""
    mode = CoreResizeMode(unit.resize_mode_from_value(resize_mode).value)
    return core_resolution(image, target_H, target_W, mode)


def to_base64_nparray(encoding: str) -> NDArray[np.uint8]:
    """Base64 or data URI -> (H, W, 3) uint8."""
    return read_rgb(encoding)


class _Functions:
    """The functions that need the services or the configured number of units."""

    def __init__(self, services: Services, unit_count: Callable[[], int]) -> None:
        self._services = services
        self._unit_count = unit_count

    def _specs(self) -> list[Any]:
        return [entry.spec for entry in self._services.annotators.entries]

    def get_max_models_num(self) -> int:
        """The configured number of units."""
        return self._unit_count()

    def get_models(self, update: bool = False) -> list[str]:
        """Display names of the control models, "None" first."""
        if update:
            self._services.library.refresh()
        return ["None", *self._services.library.names()]

    def get_modules(self, alias_names: bool = False) -> list[str]:
        """Ids of the preprocessors, or the labels of the page."""
        return catalogue.module_names(self._specs(), alias_names)

    def get_modules_detail(self, alias_names: bool = False) -> dict[str, Any]:
        """What each preprocessor offers, as in the route `module_list`."""
        return catalogue.module_details(self._specs(), alias_names)

    def update_cn_script(self, script_runner: Any, script_args_: Any, cn_units: Sequence[Any]) -> Any:
        """New arguments, of the same type, with these units."""
        return script_args.update_cn_script(script_runner, script_args_, cn_units, self._unit_count())

    def update_cn_script_in_processing(self, p: Any, cn_units: Sequence[Any], **_ignored: Any) -> None:
        """Gives a processing object these units instead of those it has."""
        script_args.put_units(p, lambda runner, args: self.update_cn_script(runner, args, cn_units))

    def update_cn_script_in_place(
        self, script_runner: Any, script_args_: list[Any], cn_units: Sequence[Any], **_ignored: Any
    ) -> None:
        """The same for a list of arguments, which is changed."""
        script_args_[:] = self.update_cn_script(script_runner, script_args_, cn_units)


def _belongs_to_others(name: str) -> bool:
    holder = sys.modules.get(name)
    if holder is not None:
        return not getattr(holder, _MARK, False)
    root = Path(__file__).resolve().parents[2]
    if name.startswith("lib_controlnet"):
        return "modules_forge" in sys.modules or _another_has(root, "lib_controlnet/external_code.py")
    return _another_has(root, f"scripts/{name.rpartition('.')[2]}.py")


def _another_has(root: Path, file: str) -> bool:
    """Whether an extension beside ours brings this file."""
    return any(found.parents[1] != root for found in root.parent.glob(f"*/{file}"))
