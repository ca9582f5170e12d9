"""`scripts.processor` of sd-webui-controlnet: a function for each preprocessor, and the tables of its panel."""

from __future__ import annotations

from typing import Any

from ..core.catalogue import module_details
from ..core.control_types import type_names
from ..engine.services import Services
from .global_state import preprocessor_function
from .images import HWC3, pad64, resize_image_with_pad, safer_memory
from .preprocessor import Lookup

RESOLUTION = "Preprocessor Resolution"
"""The name by which that module's users know the slider of the resolution."""

PLAIN = {
    "HWC3": HWC3,
    "pad64": pad64,
    "safer_memory": safer_memory,
    "resize_image_with_pad": resize_image_with_pad,
    "flag_preprocessor_resolution": RESOLUTION,
}
TABLES = (
    "preprocessor_sliders_config",
    "preprocessor_filters",
    "model_free_preprocessors",
    "no_control_mode_preprocessors",
)


class Processor:
    """What the module answers when it is asked for a name."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lookup = Lookup(services)

    def names(self) -> list[str]:
        """What `from … import *` gives."""
        return [*PLAIN, *TABLES, *(spec.id for spec in self._lookup.specs() if spec.id.isidentifier())]

    def value(self, name: str) -> Any:
        """A table, or the function of the preprocessor of that id. Raises AttributeError for any other name."""
        if name == "preprocessor_sliders_config":
            return self._sliders()
        if name == "preprocessor_filters":
            defaults = ((tag, self._lookup.default(tag)) for tag in type_names(self._lookup.specs()))
            return {tag: "none" if found is None else found.id for tag, found in defaults}
        if name == "model_free_preprocessors":
            return [spec.id for spec in self._lookup.specs() if spec.model_free]
        if name == "no_control_mode_preprocessors":
            return [spec.id for spec in self._lookup.specs() if getattr(spec, "hides_control_mode", False)]
        if name in (spec.id for spec in self._lookup.specs()):
            return preprocessor_function(self._services, name)
        raise AttributeError(f"module 'scripts.processor' has no attribute {name!r}")

    def _sliders(self) -> dict[str, list[Any]]:
        """Id -> a dict for resolution, threshold A and threshold B, or None where there is no such slider."""
        config: dict[str, list[Any]] = {}
        details = module_details(self._lookup.specs(), alias_names=False)
        for spec in self._lookup.specs():
            sliders = [dict(slider) for slider in details[spec.id]["sliders"]]
            if spec.resolution is None:
                sliders.insert(0, None)  # type: ignore[arg-type]
            else:
                sliders[0]["name"] = RESOLUTION
            config[spec.id] = sliders
        return config
