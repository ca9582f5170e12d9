"""Preprocessors that hosts of the Forge family and extensions made for them have (`modules_forge.shared`), as ours.

Only those that make a map of a picture: what acts on the sampling besides is bound to the host's own ControlNet.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

_HOOKS = ("process_after_running_preprocessors", "process_before_every_sampling", "process_after_every_sampling")
_SLIDERS = ("slider_resolution", "slider_1", "slider_2", "slider_3")


def preprocessors() -> Iterator[Any]:
    """In the shape in which sd-webui-controlnet has them, which our registry takes."""
    shared = sys.modules.get("modules_forge.shared")
    base = getattr(sys.modules.get("modules_forge.supported_preprocessor"), "Preprocessor", None)
    for found in dict(getattr(shared, "supported_preprocessors", None) or {}).values():
        if base is not None and not any(getattr(type(found), name, None) is not getattr(base, name) for name in _HOOKS):
            yield ForgePreprocessor(found)


class ForgePreprocessor:
    """One of theirs, called as they are."""

    accepts_mask = True
    requires_mask = False
    returns_image = True

    def __init__(self, found: Any) -> None:
        self._found = found
        self.name = self.label = str(found.name)
        self.tags = tuple(found.tags)
        self.sorting_priority = int(found.sorting_priority)
        self.do_not_need_model = bool(found.do_not_need_model)
        self.show_control_mode = bool(found.show_control_mode)
        self.use_soft_projection_in_hr_fix = bool(found.use_soft_projection_in_hr_fix)
        self.slider_resolution, self.slider_1, self.slider_2, self.slider_3 = map(self._slider, _SLIDERS)

    def _slider(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(**getattr(self._found, name).gradio_update_kwargs)

    def __call__(self, image: Any, resolution: int, *, input_mask: Any = None, **given: Any) -> Any:
        """The map (H, W, 3) uint8 of a picture (H, W, 3 or 4) uint8; the mask is handed over by itself."""
        sliders = {name: given.get(name) for name in _SLIDERS[1:]}
        return self._found(image[:, :, :3], resolution, input_mask=input_mask, **sliders)
