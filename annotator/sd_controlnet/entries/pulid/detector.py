"""A face's identity by two networks: one that tells faces apart, one that sees what this one looks like."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...images import Array, Pixels, to_rgb
from ...networks import normalised
from ...renaming import load_sized
from ...spec import Detection, Runtime, WeightFile
from ..clip_vision.detector import MEAN, STD
from ..face_features.detector import FaceFeatures
from ..faces.detector import Faces, NoFace
from .eva import Eva, network_of

LONGEST = 1024
"""Larger pictures are made smaller first, as PuLID's authors do."""


class Pulid:
    """faces: InsightFace's networks. features: what is the face and what is not."""

    def __init__(self, runtime: Runtime, faces: Faces, features: FaceFeatures, weights: WeightFile) -> None:
        self._runtime = runtime
        self._faces = faces
        self._features = features
        self._weights = weights

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        """id_cond (1, 1280): InsightFace's embedding as it is, then EVA-CLIP's at unit length. id_vit_hidden_0 to 4,
        (1, 577, 1024): what five of its blocks see."""
        picture = _bounded(to_rgb(image))
        face = self._features.face(picture)
        finder = self._faces.finder()
        try:
            identity = finder.embedding(picture)
        except NoFace:
            identity = finder.embedding_of_crop(face)
        look, seen = self._look(self._features.plane(face))
        named = {f"id_vit_hidden_{number}": hidden for number, hidden in enumerate(seen)}
        return Detection(tensors={"id_cond": torch.cat((identity, look), dim=1), **named}, shown=face)

    def _look(self, plane: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(1, 1, 512, 512) in 0..1 to EVA-CLIP's embedding (1, 768) at unit length and its hidden states."""
        network: Any = self._runtime.network(f"eva_clip/{self._weights.name}", self._load)
        side = network.sizes.pixels
        # on the processor: it is small, and not every device can do it
        small = F.interpolate(plane.cpu(), (side, side), mode="bicubic", align_corners=False, antialias=True)
        pixels = normalised(small.expand(-1, 3, -1, -1), MEAN, STD).to(self._runtime.device)
        with torch.no_grad():
            embedding, seen = network(pixels)
        embedding = embedding.float().cpu()
        return embedding / embedding.norm(dim=1, keepdim=True), [hidden.float().cpu() for hidden in seen]

    def _load(self) -> Eva:
        return load_sized(self._runtime, self._weights, network_of)


def _bounded(picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    if max(height, width) <= LONGEST:
        return picture
    factor = LONGEST / max(height, width)
    size = (max(int(width * factor), 1), max(int(height * factor), 1))
    return cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_LANCZOS4).astype(
        np.uint8, copy=False
    )
