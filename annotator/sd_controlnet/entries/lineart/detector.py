"""A generator of line drawings."""

from __future__ import annotations

import torch
from torch import nn

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...libraries import controlnet_aux
from ...networks import load_network, to_pixels, to_tensor
from ...spec import Runtime, WeightFile

RESIDUAL_BLOCKS = 3


class Lineart:
    """White lines on black; the network itself draws black on white."""

    def __init__(self, runtime: Runtime, id_: str, weights: WeightFile) -> None:
        self._runtime = runtime
        self._id = id_
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
        network = self._runtime.network(self._id, self._load)
        with torch.no_grad():
            drawing = to_pixels(network(to_tensor(padded, self._runtime) / 255.0)[0, 0] * 255.0)
        return grey_to_rgb(cut(255 - drawing))

    def _load(self) -> nn.Module:
        return load_network(self._runtime, self._weights, _network)


def _network() -> nn.Module:
    return controlnet_aux("lineart").Generator(3, 1, RESIDUAL_BLOCKS)
