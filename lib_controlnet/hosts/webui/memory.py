"""What the host does with its checkpoint, and what that means for the memory that control models take.

A1111 tells of a checkpoint that is loaded, not of one that is unloaded: that function is wrapped while our scripts are.
"""

from __future__ import annotations

import functools
from typing import Any

from ...engine.services import Services
from ..base import Host

_OURS = "controlnet_wrapper"
"""The attribute of our wrapper: itself, and what it wraps."""


class HostMemory:
    """Reacts for the control models of one WebUI."""

    def __init__(self, services: Services, host: Host) -> None:
        self._services = services
        self._host = host

    def checkpoint_loaded(self, model: Any) -> None:
        """Another checkpoint has taken the place of the one before (`on_model_loaded`), or the same anew."""
        self.free()
        self._services.models.forget_bases(self._host.base_id(model))

    def free(self) -> None:
        """Nothing of ours stays on the device. A job under way brings again what it needs."""
        self._services.models.release()

    def watch(self) -> None:
        """From now on unloading the host's checkpoint frees the device of ours too; again after a reload of scripts."""
        from modules import sd_models

        self.unwatch()
        original = getattr(sd_models, "unload_model_weights", None)
        if original is None:  # a host that manages memory by itself
            return

        @functools.wraps(original)
        def unload_model_weights(*args: Any, **kwargs: Any) -> Any:
            self.free()
            return original(*args, **kwargs)

        setattr(unload_model_weights, _OURS, (unload_model_weights, original))
        sd_models.unload_model_weights = unload_model_weights

    def unwatch(self) -> None:
        """Puts the host's own function back, unless somebody has wrapped ours since."""
        from modules import sd_models

        present = getattr(sd_models, "unload_model_weights", None)
        ours, original = getattr(present, _OURS, (None, None))
        if original is not None and ours is present:
            sd_models.unload_model_weights = original
