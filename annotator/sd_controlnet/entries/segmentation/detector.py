"""UniFormer's classes, painted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F

from ...images import Array, Pixels, resize_and_pad
from ...networks import fill, normalised, read_weights, ready, to_tensor
from ...palettes import ADE20K, paint
from ...spec import AnnotatorError, Runtime, WeightFile
from ...weights import find
from .net import Segmentor, UniFormer

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
SHORT_SIDE = 512
LONG_SIDE = 2048
STAGES = (1, 2, 3, 4)


class Segmentation:
    """Colours of ADE20K's classes."""

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
        return cut(paint(self._classes(padded), ADE20K))

    def _classes(self, image: Pixels) -> Array:
        """(H, W, 3) to (H, W). The network sees a short side of 512 whatever the resolution, as it was trained."""
        height, width = image.shape[:2]
        scale = min(LONG_SIDE / max(height, width), SHORT_SIDE / min(height, width))
        seen = (int(width * scale + 0.5), int(height * scale + 0.5))
        network = self._runtime.network("segmentation", self._load)
        with torch.no_grad():
            # red and blue change places: the peers do so, and the maps that control models learned from are theirs
            pixels = cv2.resize(image, seen, interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
            logits = network(normalised(to_tensor(pixels, self._runtime), MEAN, STD))
            self._runtime.stage(0.8)
            for size in (seen[::-1], (height, width)):
                logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
            return logits[0].argmax(dim=0).cpu().numpy()

    def _load(self) -> Segmentor:
        path = find(self._weights, self._runtime)
        weights = _renamed(read_weights(path))
        return ready(fill(_network(weights, path), weights, path), self._runtime)


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """mmsegmentation's names to those of transformers; the head that only helped training is left out."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.startswith("decode_head."):
            name = name.replace(".bn.", ".batch_norm.").replace(".conv_seg.", ".classifier.")
        if not name.startswith("auxiliary_head."):
            renamed[name] = value
    return renamed


def _network(weights: Mapping[str, Tensor], path: Path) -> Segmentor:
    """An empty network of the sizes of these weights."""
    from transformers import UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetHead

    try:
        widths = [weights[f"backbone.patch_embed{stage}.proj.weight"].shape[0] for stage in STAGES]
        inner = [weights[f"backbone.blocks{stage}.0.mlp.fc1.weight"].shape[0] for stage in STAGES]
        channels = weights["decode_head.fpn_bottleneck.conv.weight"].shape[0]
    except KeyError as error:
        raise AnnotatorError(
            f"{path.name} does not hold UniFormer with UPerNet's head",
            found=f"no {error.args[0]}",
            remedy=f"delete {path} and get the right file",
        ) from error
    depths = [len({m[0] for name in weights if (m := re.match(rf"backbone\.blocks{s}\.\d+\.", name))}) for s in STAGES]
    config = UperNetConfig(hidden_size=channels)
    config.num_labels = len(ADE20K)
    return Segmentor(UniFormer(widths, inner, depths), UperNetHead(config, widths))
