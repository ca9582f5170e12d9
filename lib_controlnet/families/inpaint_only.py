"""inpaint_only: what lies outside the mask stays the unit's picture, in every step and to the pixel at the end.

The formulas are sd-webui-controlnet's (scripts/hook.py "Post-processing for restore"; scripts/controlnet.py
`inpaint_only_post_processing` and `HackedImageRNG`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..core.checkpoint import of_rows
from ..core.hints import Hint
from ..core.placed import Placed
from ..core.step import Pass, Step
from .base import BoundControl, OwnControl, UnitSettings

_LAST_TIMESTEP = 999


class InpaintOnly(BoundControl):
    """With LaMa's filling ("+lama") the first pass also starts from that picture, noised, instead of noise alone."""

    obeys_mode = False

    def __init__(self, hints: Sequence[Hint], settings: UnitSettings) -> None:
        self._starts_filled = bool(settings.options["from_filling"]) and settings.pass_ is Pass.base
        self._checkpoint = settings.checkpoint()
        latents = self._checkpoint.latents(hints).float()
        self._latents = Placed(latents)
        masks = torch.cat([_mask(hint) for hint in hints])
        self._masks = Placed(functional.max_pool2d(masks, 10, stride=8, padding=1).to(latents))
        pictures = [hint.display[:, :, :3].copy() for hint in hints]
        self._pictures = [torch.as_tensor(picture).permute(2, 0, 1).float() / 255.0 for picture in pictures]
        self._seams = [_seam(hint, settings.blur) for hint in hints]

    def start_noise(self, noise: Tensor) -> Tensor:
        if not self._starts_filled:
            return noise
        latents = self._latents.like(noise)
        latents = latents[[place % len(latents) for place in range(len(noise))]]
        timesteps = torch.full((len(noise),), _LAST_TIMESTEP, device=noise.device)
        return self._checkpoint.noised(latents, timesteps, noise)

    def predicted(self, step: Step, output: Tensor) -> Tensor:
        def restored(x0: Tensor) -> Tensor:
            original, masks = (of_rows(part.like(x0), step) for part in (self._latents, self._masks))
            return torch.lerp(original, x0, masks)

        return self._checkpoint.redrawn(step, output, restored)

    def decoded(self, picture: Tensor, index: int) -> Tensor:
        index %= len(self._pictures)
        original, seam = self._pictures[index].to(picture), self._seams[index].to(picture)
        return torch.lerp(original, picture.clamp(0, 1), seam).clamp(0, 1)


def _mask(hint: Hint) -> Tensor:
    """(1, 1, H, W), 1 where to paint."""
    if hint.mask is None:
        raise ValueError("the effect inpaint_only needs a map with a mask")
    return hint.mask


def _seam(hint: Hint, width: int) -> Tensor:
    """(1, H, W): the mask, grown by `width` pixels and faded as far."""
    mask = np.ascontiguousarray(cast("NDArray[np.float32]", np.asarray(_mask(hint)[0, 0])))
    if width > 0:
        grown = cv2.dilate(mask, np.ones((width, width), np.uint8))
        mask = np.asarray(cv2.blur(grown, (width, width)), np.float32)
    return torch.as_tensor(np.ascontiguousarray(mask))[None]


EFFECT = OwnControl("inpaint_only", InpaintOnly)
