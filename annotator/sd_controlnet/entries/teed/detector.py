"""TEED's four maps as one, and Anyline's fine lines over it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import nn

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...libraries import controlnet_aux
from ...lines import safe_step
from ...networks import load_network, to_tensor
from ...spec import Runtime, WeightFile
from ..lineart_standard.detector import line_intensity

FINE_SIGMA, LEAST_LINE = 2.0, 3.0
LEAST_PIXELS = 12
"""Smaller specks are dropped. Anyline says 36, and counts each pixel in three equal channels."""


class Teed:
    """params: the number of equal steps to which the edges are cut down, 0 for all their greys."""

    def __init__(self, runtime: Runtime, id_: str, weights: WeightFile) -> None:
        self._runtime = runtime
        self._id = id_
        self._weights = weights

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (2.0,),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3), white edges on black."""
        padded, cut = resize_and_pad(image, resolution)
        return grey_to_rgb(cut(self._edges(padded, int(params[0]))))

    def _edges(self, image: Pixels, steps: int) -> Pixels:
        """(H, W, 3) to (H, W), both multiples of 8: the sigmoid of the mean of the network's four maps."""
        network = self._runtime.network(self._id, self._load)
        with torch.no_grad():
            pixels = to_tensor(image, self._runtime).contiguous(memory_format=torch.channels_last)
            sides = network(pixels)
            edges = torch.sigmoid(torch.cat(sides, dim=1).mean(dim=1))[0].cpu().numpy()
        if steps:
            edges = safe_step(edges, steps)
        return (edges * 255.0).clip(0, 255).astype(np.uint8)

    def _load(self) -> nn.Module:
        network = load_network(self._runtime, self._weights, controlnet_aux("teed").TED)
        return network.to(memory_format=torch.channels_last)  # a quarter less time on a processor


class Anyline(Teed):
    """The edges with all lines that are a little darker than their surroundings (TheMistoAI, ComfyUI-Anyline).

    In numbers 0..1, as Anyline does it in ComfyUI. Elsewhere its formula was copied into 8-bit arithmetic:
    sd-webui-controlnet's map hardly differs from the edges alone, controlnet_aux's wraps around.
    """

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (2.0,),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3), white edges on black."""
        padded, cut = resize_and_pad(image, resolution)
        edges = cut(self._edges(padded, int(params[0])))
        self._runtime.stage(0.8)
        lines = line_intensity(padded, LEAST_LINE, lambda channel: cv2.GaussianBlur(channel, (0, 0), FINE_SIGMA))
        return grey_to_rgb(screened(edges, without_specks(cut(lines))))


def without_specks(lines: Pixels) -> Pixels:
    """(H, W) without the connected pixels (4 neighbours) that are fewer than `LEAST_PIXELS`."""
    _, labels, facts, _ = cv2.connectedComponentsWithStats((lines > 0).astype(np.uint8), connectivity=4)
    kept = facts[:, cv2.CC_STAT_AREA] >= LEAST_PIXELS
    return lines * kept[labels.astype(np.intp)]


def screened(base: Pixels, top: Pixels) -> Pixels:
    """(H, W) each: the inverse of the product of the inverses, as numbers 0..1."""
    dark = (255 - base).astype(np.float32) * (255 - top).astype(np.float32)
    return (255.0 - dark / 255.0 + 0.5).astype(np.uint8)
