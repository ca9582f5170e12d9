"""OneFormer's classes, painted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ...images import Array, Pixels, resize_and_pad
from ...networks import normalised, to_tensor
from ...palettes import ADE20K, COCO, paint
from ...renaming import load_sized
from ...spec import AnnotatorError, Runtime, WeightFile
from .network import build

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
MULTIPLE = 32
TASK = (49406, 518, 10549, 533, 29119, 1550, 49407)
"""The tokens of "the task is semantic", with CLIP's tokeniser; zeros follow."""
SIDES = {"oneformer_ade20k": (640, 2560), "oneformer_coco": (800, 1333)}
"""Short side at which the network sees the picture, unless the long one would be longer than the second number."""
COLOURS = {"oneformer_ade20k": ADE20K, "oneformer_coco": COCO}


class OneFormer:
    """`id_` chooses the classes. Painted pixel by pixel: the peers draw polygons, with seams between them."""

    def __init__(self, runtime: Runtime, id_: str, weights: WeightFile) -> None:
        self._runtime = runtime
        self._id = id_
        self._weights = weights
        self._colours = COLOURS[id_]

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
        return cut(paint(self._classes(padded), self._colours))

    def _classes(self, image: Pixels) -> Array:
        """(H, W, 3) to (H, W)."""
        seen = _resized(image, *SIDES[self._id])
        height, width = seen.shape[:2]
        network = self._runtime.network(self._id, self._load)
        with torch.no_grad():
            pixels = normalised(to_tensor(seen, self._runtime), MEAN, STD)
            pixels = F.pad(pixels, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
            task = torch.zeros(1, network.config.task_seq_len, device=pixels.device)
            task[0, : len(TASK)] = torch.tensor(TASK, device=pixels.device)
            answer = network(pixel_values=pixels, task_inputs=task)
            self._runtime.stage(0.8)
            masks = F.interpolate(answer.masks_queries_logits, pixels.shape[2:], mode="bilinear")
            masks = F.interpolate(masks[:, :, :height, :width], image.shape[:2], mode="bilinear")
            likely = answer.class_queries_logits.softmax(dim=-1)[0, :, :-1]
            return torch.einsum("qc,qhw->chw", likely, masks[0].sigmoid()).argmax(dim=0).cpu().numpy()

    def _load(self) -> Any:
        network = load_sized(self._runtime, self._weights, build)
        if network.config.num_labels != len(self._colours):
            raise AnnotatorError(
                f"the weights in {self._weights.name} are for other classes",
                found=f"{network.config.num_labels} classes instead of {len(self._colours)}",
                remedy="delete the file and get the right one",
            )
        return network


def _resized(image: Pixels, short: int, long: int) -> Pixels:
    """As detectron2 does, with PIL."""
    height, width = image.shape[:2]
    scale = short / min(height, width)
    scale = min(scale, long / max(height, width))
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
