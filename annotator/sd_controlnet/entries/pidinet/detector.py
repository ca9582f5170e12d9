"""PiDiNet's map, by a network whose pixel differences are plain convolutions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...libraries import controlnet_aux
from ...lines import safe_step, scribble
from ...networks import load_network, to_tensor
from ...spec import Runtime, WeightFile

CHANNELS, DILATED = 60, 24
KINDS = ("cd", "ad", "rd", "cv") * 4
"""Central, angular and radial differences and plain convolutions take turns in the published weights ("carv4")."""

_CLOCKWISE = (3, 0, 1, 6, 4, 2, 7, 8, 5)
_RING, _INNER = (0, 2, 4, 10, 14, 20, 22, 24), (6, 7, 8, 11, 13, 16, 17, 18)


class PiDiNet:
    """`id_` chooses the last stage: soft edges, edges in steps, scribbled strokes, or a sketch without greys."""

    def __init__(self, runtime: Runtime, id_: str, weights: WeightFile) -> None:
        self._runtime = runtime
        self._weights = weights
        self._finish = {
            "pidinet": _soft,
            "pidinet_safe": _safe,
            "pidinet_scribble": _scribbled,
            "pidinet_sketch": _sketched,
        }[id_]

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
        """(H, W, 3) RGB to (H, W) float 0..1; the network was trained on BGR."""
        network = self._runtime.network("pidinet", self._load)
        with torch.no_grad():
            pixels = to_tensor(image[:, :, ::-1], self._runtime) / 255.0
            return network(pixels)[-1][0, 0].cpu().numpy()

    def _load(self) -> nn.Module:
        return load_network(self._runtime, self._weights, _network, folded)


def _network() -> nn.Module:
    return controlnet_aux("pidi").model.PiDiNet(CHANNELS, KINDS, dil=DILATED, sa=True, convert=True)


def folded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of pixel differences as those of plain convolutions, under the same names.

    Every one of the three is linear in the picture: the differences are taken between weights once instead of between
    pixels at every call. Files in which they are folded already, and other networks' (which are refused where they are
    filled in), are returned as they are.
    """
    kinds = dict(zip(_layers(), KINDS, strict=True))
    return {
        name: _FOLDS[kinds.get(name, "cv")](weight) if weight.shape[2:] == (3, 3) else weight
        for name, weight in weights.items()
    }


def _layers() -> list[str]:
    blocks = [f"block{stage}_{number}" for stage, count in enumerate((3, 4, 4, 4), 1) for number in range(1, count + 1)]
    return ["init_block.weight", *(f"{block}.conv1.weight" for block in blocks)]


def _central(weight: Tensor) -> Tensor:
    """Each neighbour minus the centre."""
    plain = weight.clone()
    plain[:, :, 1, 1] -= weight.sum(dim=(2, 3))
    return plain


def _angular(weight: Tensor) -> Tensor:
    """Each neighbour minus the next one clockwise."""
    flat = weight.flatten(2)
    return (flat - flat[:, :, _CLOCKWISE]).view(weight.shape)


def _radial(weight: Tensor) -> Tensor:
    """Each pixel of the outer ring minus the one before it on the way to the centre, in 5x5."""
    flat = weight.flatten(2)
    plain = flat.new_zeros(*flat.shape[:2], 25)
    plain[:, :, _RING] = flat[:, :, 1:]
    plain[:, :, _INNER] = -flat[:, :, 1:]
    return plain.view(*flat.shape[:2], 5, 5)


def _plain(weight: Tensor) -> Tensor:
    return weight


_FOLDS = {"cd": _central, "ad": _angular, "rd": _radial, "cv": _plain}


def _soft(edges: Array) -> Pixels:
    return (edges * 255.0).clip(0, 255).astype(np.uint8)


def _safe(edges: Array) -> Pixels:
    return _soft(safe_step(edges))


def _scribbled(edges: Array) -> Pixels:
    return scribble(_soft(edges))


def _sketched(edges: Array) -> Pixels:
    return (edges > 0.5).astype(np.uint8) * np.uint8(255)
