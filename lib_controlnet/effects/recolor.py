"""recolor: the result takes its light from the unit's map and keeps its own colours.

As sd-webui-controlnet's `recolor_luminance_post_processing` and `recolor_intensity_post_processing`.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from .base import Effect, Setup

IDS = ("recolor_luminance", "recolor_intensity")


class Recolor(Effect):
    """Replaces L of CIELAB, or V of HSV."""

    def __init__(self, setup: Setup) -> None:
        self._lights = [np.ascontiguousarray(hint.display[:, :, 0]) for hint in setup.hints]
        if setup.options["light"] == "luminance":
            self._channel, self._to, self._from = 0, cv2.COLOR_RGB2LAB, cv2.COLOR_LAB2RGB
        else:
            self._channel, self._to, self._from = 2, cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB

    def finished(self, picture: Tensor, place: int) -> Tensor:
        pixels = (picture.detach().float().permute(1, 2, 0).cpu().numpy() * 255.0).clip(0, 255).astype(np.uint8)
        light = self._lights[place % len(self._lights)]
        planes = [*cv2.split(cv2.cvtColor(np.ascontiguousarray(pixels), self._to))]
        planes[self._channel] = light
        recoloured = cv2.cvtColor(cv2.merge(planes), self._from)
        return torch.from_numpy(recoloured).permute(2, 0, 1).to(picture) / 255.0


EFFECT = Recolor
