"""inpaint_only: what lies outside the mask stays the unit's picture, in every step and to the pixel at the end.

The formulas are sd-webui-controlnet's (scripts/hook.py "Post-processing for restore"; scripts/controlnet.py
`inpaint_only_post_processing` and `HackedImageRNG`).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..core.hints import Hint
from ..core.step import Pass, Step
from .base import Effect, Setup, of_rows
from .placed import Placed

IDS = ("inpaint_only",)
_LAST_TIMESTEP = 999


class InpaintOnly(Effect):
    """With LaMa's filling ("+lama") the first pass also starts from that picture, noised, instead of noise alone."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        latents = setup.latents().float()
        self._latents = Placed(latents)
        masks = torch.cat([_mask(hint) for hint in setup.hints])
        self._masks = Placed(functional.max_pool2d(masks, 10, stride=8, padding=1).to(latents))
        pictures = [hint.display[:, :, :3].copy() for hint in setup.hints]
        self._pictures = [torch.from_numpy(picture).permute(2, 0, 1).float() / 255.0 for picture in pictures]
        self._seams = [_seam(hint, setup.blur) for hint in setup.hints]

    def noise(self, noise: Tensor) -> Tensor:
        if not self._setup.options["from_filling"] or self._setup.pass_ is not Pass.base:
            return noise
        latents = self._latents.like(noise)
        latents = latents[[place % len(latents) for place in range(len(noise))]]
        timesteps = torch.full((len(noise),), _LAST_TIMESTEP, device=noise.device)
        return self._setup.sampling.noised(latents, timesteps, noise)

    def after(self, step: Step, output: Tensor) -> Tensor:
        def restored(x0: Tensor) -> Tensor:
            original, masks = (of_rows(part.like(x0), step) for part in (self._latents, self._masks))
            return torch.lerp(original, x0, masks)

        return self._setup.redrawn(step, output, restored)

    def finished(self, picture: Tensor, place: int) -> Tensor:
        place %= len(self._pictures)
        original, seam = self._pictures[place].to(picture), self._seams[place].to(picture)
        return torch.lerp(original, picture.clamp(0, 1), seam).clamp(0, 1)


def _mask(hint: Hint) -> Tensor:
    """(1, 1, H, W), 1 where to paint."""
    if hint.mask is None:
        raise ValueError("the effect inpaint_only needs a map with a mask")
    return hint.mask


def _seam(hint: Hint, width: int) -> Tensor:
    """(1, H, W): the mask, grown by `width` pixels and faded as far."""
    mask = np.ascontiguousarray(_mask(hint)[0, 0].numpy())
    if width > 0:
        grown = cv2.dilate(mask, np.ones((width, width), np.uint8))
        mask = cv2.blur(grown, (width, width))
    return torch.from_numpy(np.ascontiguousarray(mask))[None]


EFFECT = InpaintOnly
