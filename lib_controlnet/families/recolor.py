"""recolor: the result takes its light from the unit's map and keeps its own colours.

As sd-webui-controlnet's `recolor_luminance_post_processing` and `recolor_intensity_post_processing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.hints import Hint
from .base import BoundControl, OwnControl, UnitSettings

_LIGHTS = {
    "luminance": (0, cv2.COLOR_RGB2LAB, cv2.COLOR_LAB2RGB),
    "intensity": (2, cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB),
}
"""What is replaced: the channel and the way to its colour space and back."""


class Recolor(BoundControl):
    """Replaces L of CIELAB, or V of HSV."""

    obeys_mode = stepwise = False

    def __init__(self, hints: Sequence[Hint], settings: UnitSettings) -> None:
        self._lights = [np.ascontiguousarray(hint.display[:, :, 0]) for hint in hints]
        self._channel, self._to, self._from = _LIGHTS[str(settings.options["light"])]

    def decoded(self, picture: Tensor, index: int) -> Tensor:
        values = cast("NDArray[np.float32]", np.asarray(picture.detach().float().permute(1, 2, 0).cpu()))
        pixels = (values * 255.0).clip(0, 255).astype(np.uint8)
        light = self._lights[index % len(self._lights)]
        planes = [*cv2.split(cv2.cvtColor(np.ascontiguousarray(pixels), self._to))]
        planes[self._channel] = light
        recoloured = cv2.cvtColor(cv2.merge(planes), self._from)
        return torch.as_tensor(recoloured).permute(2, 0, 1).to(picture) / 255.0


EFFECT = OwnControl("recolor", Recolor)
