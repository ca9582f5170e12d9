"""The parts of an anime face, painted."""

from __future__ import annotations

import numpy as np
import torch

from ...images import Array, Pixels, resize_and_pad
from ...networks import load_network, to_tensor
from ...palettes import paint
from ...spec import Runtime, WeightFile
from .net import UNet

COLOURS = np.array(
    [
        (255, 255, 0),  # background
        (0, 0, 255),  # hair
        (255, 0, 0),  # eye
        (255, 255, 255),  # mouth
        (0, 255, 0),  # face
        (0, 255, 255),  # skin
        (255, 0, 255),  # clothes
    ],
    np.uint8,
)


class AnimeFaceSegment:
    """Seven colours. The network sees the picture at the resolution asked for, as in comfyui_controlnet_aux.

    sd-webui-controlnet scales to 512 and then cuts the result as if it had not, so that only 512 is right there; at 512
    the maps are the same.
    """

    def __init__(self, runtime: Runtime, weights: WeightFile) -> None:
        self._runtime = runtime
        self._weights = weights

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3)."""
        padded, cut = resize_and_pad(image, resolution)
        network = self._runtime.network("anime_face_segment", self._load)
        with torch.no_grad():
            classes = network(to_tensor(padded, self._runtime) / 255.0)[0].argmax(dim=0)
        return cut(paint(classes.cpu().numpy(), COLOURS))

    def _load(self) -> UNet:
        return load_network(self._runtime, self._weights, UNet)
