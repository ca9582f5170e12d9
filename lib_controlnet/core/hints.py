"""What a control model consumes: a map at the size of one pass, as a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .modes import ResizeMode
from .resize import Array, Pixels, fit_map


@dataclass(frozen=True, eq=False)
class Hint:
    """A control map for one pass.

    image: (1, 3, H, W) float32 in 0..1; masked pixels of an inpaint map are -1 in all channels.
    mask: (1, 1, H, W) float32 of 0 and 1, 1 where to paint; None unless the map was an inpaint map.
    display: (H, W, 3) uint8, or (H, W, 4) with masked pixels half transparent: what the user is shown.
    """

    image: Tensor
    mask: Tensor | None
    display: Pixels

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.image.shape[3]), int(self.image.shape[2])


def hint_from_map(image: Array, width: int, height: int, mode: ResizeMode) -> Hint:
    """The hint of a control map (H, W), (H, W, 3) or, for inpainting, (H, W, 4), all uint8, at (`height`, `width`).

    An inpaint map's alpha above half means "to be painted"; the model was trained to find -1 there (ControlNet 1.1).
    """
    fitted = fit_map(image, width, height, mode)
    planes = torch.tensor(np.ascontiguousarray(fitted.transpose(2, 0, 1)), dtype=torch.float32)[None] / 255.0
    if fitted.shape[2] == 3:
        return Hint(planes, None, fitted)
    mask = (planes[:, 3:4] > 0.5).float()
    return Hint(planes[:, :3] * (1.0 - mask) - mask, mask, inpaint_display(fitted))


def inpaint_display(image: Array) -> Pixels:
    """(H, W, 4) in 0..255 as (H, W, 4) uint8 in which masked pixels are half transparent."""
    shown = np.rint(image.clip(0, 255)).astype(np.uint8)
    shown[:, :, 3] = 255 - shown[:, :, 3] // 2
    return shown
