"""HED's five side outputs as one map of soft edges."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...libraries import controlnet_aux
from ...lines import safe_step, scribble
from ...networks import checked, load_network, to_tensor
from ...spec import Runtime, WeightFile


class Hed:
    """`id_` chooses the last stage: soft edges, edges in steps, or scribbled strokes."""

    def __init__(self, runtime: Runtime, id_: str, weights: WeightFile) -> None:
        self._runtime = runtime
        self._weights = weights
        self._finish = {"hed": _soft, "hed_safe": _safe, "scribble_hed": _scribbled}[id_]

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3), white edges on black."""
        padded, cut = resize_and_pad(image, resolution)
        return grey_to_rgb(self._finish(cut(self._edges(padded))))

    def _edges(self, image: Pixels) -> Array:
        """(H, W, 3) uint8 to (H, W) float 0..1: the sigmoid of the mean of all side outputs."""
        network = self._runtime.network("hed", self._load)
        with torch.no_grad():
            pixels = to_tensor(image, self._runtime).contiguous(memory_format=torch.channels_last)
            found = checked(network(pixels.to(getattr(torch, self._runtime.dtype))))  # its class knows no hooks
            sides = [F.interpolate(side.float(), image.shape[:2], mode="bilinear") for side in found]
            mean = torch.stack(sides).mean(dim=0)[0, 0]
            return torch.sigmoid(mean).cpu().numpy()

    def _load(self) -> nn.Module:
        network = load_network(self._runtime, self._weights, controlnet_aux("hed").ControlNetHED_Apache2)
        # a fifth less time on a processor; the result differs in the last bits of float32
        return network.to(memory_format=torch.channels_last)


def _soft(edges: Array) -> Pixels:
    return (edges * 255.0).clip(0, 255).astype(np.uint8)


def _safe(edges: Array) -> Pixels:
    return _soft(safe_step(edges))


def _scribbled(edges: Array) -> Pixels:
    return scribble(_soft(edges))
