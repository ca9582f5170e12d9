"""`external_code`: the module through which other extensions use a ControlNet extension, bound to services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import catalogue
from ..core.images import read_rgb
from ..core.modes import ResizeMode as CoreResizeMode
from ..core.resize import pixel_perfect_resolution as core_resolution
from ..engine.services import Services
from . import enums, script_args, unit
from .images import visualize_inpaint_mask
from .preprocessor import Preprocessor, PreprocessorParameter


def fill(
    module: ModuleType, services: Services, unit_count: Callable[[], int], preprocessor: type[Preprocessor]
) -> None:
    """Puts the interface into a module."""
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
        PreprocessorParameter,
        preprocessor,
    )
    bound = [getattr(functions, name) for name in dir(functions) if not name.startswith("_")]
    for item in (*plain, *bound):
        setattr(module, item.__name__, item)
    vars(module).update(UiControlNetUnit=unit.ControlNetUnit, resize_mode_aliases=dict(RESIZE_MODE_ALIASES))


RESIZE_MODE_ALIASES = {
    "Inner Fit (Scale to Fit)": "Crop and Resize",
    "Outer Fit (Shrink to Fit)": "Resize and Fill",
    "Scale to Fit (Inner Fit)": "Crop and Resize",
    "Envelope (Outer Fit)": "Resize and Fill",
}
"""Older words of the resize modes."""


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
