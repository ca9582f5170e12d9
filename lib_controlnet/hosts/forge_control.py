"""Our objects among the control objects of a host of the Forge family.

The residuals themselves are made at the U-Net's call, when the prompts that it gets are known and however many calls
somebody makes of one; so these objects give none. They are what the host asks of the memory that the pass will take,
and where tilers (MultiDiffusion) find each unit's hint and set the pieces of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..engine.session import ControlSession


class ControlObject:
    """A node of the host's list of control objects. It must not have a `dtype`: the host would cast it."""

    cond_hint: Tensor | None = None
    """Tilers set the pieces of a hint in every node; in this one they are nobody's."""

    def __init__(self, size: Callable[[], int]) -> None:
        """size: bytes on the device of the models that act."""
        self._size = size
        self.previous_controlnet: Any = None
        """The node before, or None."""
        self.transformer_options: dict[str, Any] = {}
        """Set by the host before each call."""
        self.device = torch.device("cpu")
        """Where a hint is handed over."""

    @property
    def cond_hint_original(self) -> Tensor:
        """What tilers cut, (1, 3, H, W): in a node that stands for no unit nothing."""
        return torch.zeros(1, 3, 8, 8)

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


class HintObject(ControlObject):
    """Stands for one unit, whose hint is a picture that lies where the latent does. Only the attributes are new."""

    def __init__(self, session: ControlSession, index: int) -> None:
        """index: of the unit among those of the session."""
        super().__init__(lambda: 0)
        self._session, self._index = session, index
        self._set: Tensor | None = None

    @property
    def cond_hint_original(self) -> Tensor:
        """The unit's hint for the pass, (1, 3 or 4, H, W) float32 0..1. Raises UnitError where there are several."""
        return self._session.whole_hint(self._index)

    @property
    def cond_hint(self) -> Tensor | None:
        """The pieces that were set last, None before."""
        return self._set

    @cond_hint.setter
    def cond_hint(self, pieces: Tensor) -> None:
        """(T, 3 or 4, h, w), one for each row of the U-Net calls to come, or one for each tile."""
        self._session.tile(self._index, pieces)
        self._set = pieces


def add_to(patcher: Any, session: ControlSession) -> None:
    """The session's objects join those of the host's patcher."""
    patcher.add_patched_controlnet(ControlObject(lambda: session.size))
    for index, run in enumerate(session.runs):
        if run.takes_part and any(part.bound.spatial for part in run.parts):
            patcher.add_patched_controlnet(HintObject(session, index))
