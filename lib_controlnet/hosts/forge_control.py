"""Our object among the control objects of a host of the Forge family.

The residuals themselves are made at the U-Net's call, when the prompts that it gets are known and however many calls
somebody makes of one; so this object gives none. It is what the host asks of the memory that the pass will take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ControlObject:
    """A node of the host's list of control objects. It must not have a `dtype`: the host would cast it."""

    def __init__(self, size: Callable[[], int]) -> None:
        """size: bytes on the device of the models that act."""
        self._size = size
        self.previous_controlnet: Any = None
        """The node before, or None."""
        self.transformer_options: dict[str, Any] = {}
        """Set by the host before each call."""

    def set_previous_controlnet(self, previous: Any) -> ControlObject:
        """The host puts it behind `previous`."""
        self.previous_controlnet = previous
        return self

    def get_models(self) -> list[Any]:
        """The patchers that the host is to load: ours are brought by us, see `inference_memory_requirements`."""
        return [] if self.previous_controlnet is None else self.previous_controlnet.get_models()

    def inference_memory_requirements(self, dtype: Any) -> int:
        """Bytes that must stay free beside the U-Net. `dtype` is None in Forge and Neo."""
        before = self.previous_controlnet
        return self._size() + (0 if before is None else before.inference_memory_requirements(dtype))

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        """A sampling begins."""

    def cleanup(self) -> None:
        """A sampling has ended."""

    def get_control(self, x_noisy: Any, t: Any, cond: Any, batched_number: int, *rest: Any) -> Any:
        """What the nodes before give. reForge passes `transformer_options` as a fifth argument."""
        before = self.previous_controlnet
        return None if before is None else before.get_control(x_noisy, t, cond, batched_number, *rest)
