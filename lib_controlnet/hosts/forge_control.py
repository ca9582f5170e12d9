"""Our object among the control objects of a host of the Forge family.

The residuals themselves are made at the U-Net's call, when the prompts that it gets are known and however many calls
somebody makes of one; so this object gives none. It is what the host asks of the memory that the pass will take,
and where tilers (MultiDiffusion) find each unit's hint and set the pieces of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..engine.generation import UnitRun
from ..engine.session import ControlSession


class ControlObject:
    """The node of one pass in the host's list of control objects. It must not have a `dtype`: the host would cast it.

    One for all units: MultiDiffusion fails where there are several nodes. Their hints lie side by side as channels, at
    which it does not look.
    """

    device = torch.device("cpu")
    """Where hints are handed over."""

    def __init__(self, session: ControlSession) -> None:
        self._session = session
        self._units = [at for at, run in enumerate(session.runs) if run.takes_part and _has_place(run)]
        """The session's units whose hint lies where the latent does."""
        self._pieces: Tensor | None = None
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
        return self._session.size + (0 if before is None else before.inference_memory_requirements(dtype))

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        """A sampling begins."""

    def cleanup(self) -> None:
        """A sampling has ended."""

    def get_control(self, x_noisy: Any, t: Any, cond: Any, batched_number: int, *rest: Any) -> Any:
        """What the nodes before give. reForge passes `transformer_options` as a fifth argument."""
        before = self.previous_controlnet
        return None if before is None else before.get_control(x_noisy, t, cond, batched_number, *rest)

    @property
    def cond_hint_original(self) -> Tensor:
        """The units' hints for the pass, (1, C, H, W) float32 0..1; nothing of interest without such units.

        Raises UnitError where a unit has several.
        """
        hints = [self._session.whole_hint(at) for at in self._units]
        return torch.cat(hints, dim=1) if hints else torch.zeros(1, 3, 8, 8)

    @property
    def cond_hint(self) -> Tensor | None:
        """The pieces that were set last, None before."""
        return self._pieces

    @cond_hint.setter
    def cond_hint(self, pieces: Tensor) -> None:
        """(T, C, h, w), one for each row of the U-Net calls to come, or one for each tile."""
        self._pieces = pieces
        channels = [3 if self._session.runs[at].region is None else 4 for at in self._units]
        for at, part in zip(self._units, pieces.split(channels, dim=1) if channels else (), strict=True):
            self._session.tile(at, part)


def _has_place(run: UnitRun) -> bool:
    return any(part.bound.spatial for part in run.parts)
