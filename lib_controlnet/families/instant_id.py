"""InstantID (arXiv 2401.07519): its ControlNet hears who the face is in place of the prompt.

It has the shapes of any ControlNet of SDXL. The face comes from the unit of its IP-Adapter in the same job; all other
ControlNets keep the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import UnitError
from ..core.step import Step
from .base import BoundControl, UnitSettings
from .image_prompts import BoundIPAdapter

NAMES = ("instantid", "instant_id", "instant-id")
"""In the names under which its ControlNet is handed on. They count where neither the file, nor what lies beside it, nor
the preprocessor says whether a ControlNet is InstantID's."""


class FaceContext:
    """The tokens of the face that a ControlNet hears in one pass."""

    def __init__(self, model: str, settings: UnitSettings) -> None:
        """model: the ControlNet's file, for errors."""
        self._model = model
        self._settings = settings
        self._teller: BoundIPAdapter | None = None
        self._tokens: Tensor | None = None
        """Of its own: ControlNets may compute beside the U-Net, on another stream than what acts in it."""
        self._kept: dict[tuple[tuple[int, ...], torch.device, torch.dtype], Tensor] = {}

    def meet(self, own: BoundControl, others: Sequence[BoundControl]) -> None:
        """Takes the face from the nearest unit before, or else after, that has one. Raises UnitError without any."""
        place = list(others).index(own)
        ordered = [*reversed(others[:place]), *others[place + 1 :]]
        tellers = [other for other in ordered if isinstance(other, BoundIPAdapter) and other.knows_faces]
        if not tellers:
            raise UnitError(
                f'"{self._model}" is InstantID\'s ControlNet, which hears a face in place of the prompt, and no other '
                "unit gives it one",
                unit=self._settings.unit,
                field="model",
                found="no unit that acts in this pass with InstantID's IP-Adapter at a weight above 0",
                remedy="add one, with the preprocessor instant_id_face_embedding and the model ip-adapter_instant_id; "
                "if the model is no InstantID, write face_context: false into a .yaml file of its name beside it",
            )
        self._teller = tellers[0]

    def of(self, step: Step, like: Tensor) -> Tensor:
        """(B, T, D) for the rows of `step`, where and as `like` is: of nobody for those of the negative prompt."""
        teller = self._teller
        if teller is None:
            raise RuntimeError("a ControlNet is to hear a face before it has met the other units")
        rows = teller.rows(step)
        key = (rows, like.device, like.dtype)
        if key not in self._kept:
            self._tokens = teller.tokens_anew() if self._tokens is None else self._tokens
            self._kept[key] = step.kept.of(self._tokens.to(like), rows)
        return self._kept[key]
