"""Pictures through the image half of CLIP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ...images import Array, Pixels, to_rgb
from ...networks import fill, normalised, read_weights, ready, to_tensor
from ...spec import AnnotatorError, Detection, Runtime, WeightFile
from ...weights import find

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
HEADS = 16
PARTS = ("vision_model.", "visual_projection.")
_COUNTER = "vision_model.embeddings.position_ids"

# the three files hold networks of different kinds; what sizes cannot tell is known by the width of the embedding
PROJECTION = {"clip_vitl.pth": 768, "clip_h.pth": 1024, "clip_g.pth": 1280}
ACTIVATION = {768: "quick_gelu", 1024: "gelu", 1280: "gelu"}


class ClipVision:
    """`weights` is one of the files in `PROJECTION`."""

    def __init__(self, runtime: Runtime, weights: WeightFile, crops: bool = False) -> None:
        """crops: the one number that it takes says whether it sees the middle square only."""
        self._runtime = runtime.for_clip()
        self._weights = weights
        self._crops = crops
        self._zero: Tensor | None = None

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        """Embeddings of one picture; what `mask` covers is grey (the mean) to the network.

        image_embeds: (1, P); last_hidden_state and penultimate_hidden_state (before the last layer): (1, tokens, W);
        zero_hidden_state: the latter of a picture of zeros in the network's own units, which stands for no picture.
        """
        if self._crops and params and params[0] > 0.5:
            image, mask = middle_square(to_rgb(image)), None if mask is None else middle_square(mask)
        network = self._runtime.network(f"clip_vision/{self._weights.name}", self._load)
        with torch.no_grad():
            pixels = self._pixels(image, mask, network.config.image_size)
            answer = network(pixel_values=pixels, output_hidden_states=True)
            if self._zero is None:
                nothing = network(pixel_values=torch.zeros_like(pixels), output_hidden_states=True)
                self._zero = nothing.hidden_states[-2].float().cpu().contiguous()
        tensors = {
            "image_embeds": answer.image_embeds,
            "last_hidden_state": answer.last_hidden_state,
            "penultimate_hidden_state": answer.hidden_states[-2],
        }
        found = {name: value.float().cpu().contiguous() for name, value in tensors.items()}
        return Detection(tensors={**found, "zero_hidden_state": self._zero})

    def _pixels(self, image: Array, mask: Pixels | None, side: int) -> Tensor:
        """(1, 3, side, side): squashed into a square, not cropped, as IP-Adapter's users know it from the peers."""
        square = cv2.resize(np.ascontiguousarray(to_rgb(image)), (side, side), interpolation=cv2.INTER_AREA)
        pixels = normalised(to_tensor(square, self._runtime) / 255.0, MEAN, STD)
        if mask is None:
            return pixels
        if mask.shape != image.shape[:2]:
            raise AnnotatorError(
                "the mask must have the size of the picture", found=f"{mask.shape} for {image.shape[:2]}"
            )
        kept = 255 - cv2.resize(np.ascontiguousarray(mask), (side, side), interpolation=cv2.INTER_AREA)
        return pixels * to_tensor(kept[:, :, None], self._runtime) / 255.0

    def _load(self) -> Any:
        path = find(self._weights, self._runtime)
        weights = {name: value for name, value in read_weights(path).items() if name.startswith(PARTS)}
        network = _network(weights, path, PROJECTION[self._weights.name])
        weights.pop(_COUNTER, None)  # 0, 1, 2, ...: in some versions of transformers a part of the weights
        if _COUNTER in network.state_dict():
            weights[_COUNTER] = network.state_dict()[_COUNTER]
        return ready(fill(network, weights, path), self._runtime)


def middle_square(image: Array) -> Array:
    """The middle square of (H, W, ...), a view."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def _network(weights: Mapping[str, Tensor], path: Path, projection: int) -> Any:
    """An empty network of the sizes of these weights, so that a file of other sizes than the usual works too."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    try:
        patches = weights["vision_model.embeddings.patch_embedding.weight"]
        positions = weights["vision_model.embeddings.position_embedding.weight"]
        inner = weights["vision_model.encoder.layers.0.mlp.fc1.weight"]
        found = weights["visual_projection.weight"].shape[0]
    except KeyError as error:
        raise AnnotatorError(
            f"{path.name} is not an image encoder of CLIP",
            found=f"no {error.args[0]}",
            remedy=f"delete {path} and get the right file",
        ) from error
    if found != projection:
        raise AnnotatorError(
            f"{path.name} is another image encoder of CLIP",
            found=f"an embedding of {found} numbers instead of {projection}",
            remedy=f"delete {path} and get the right file",
        )
    patch, side = patches.shape[2], int((positions.shape[0] - 1) ** 0.5)
    config = CLIPVisionConfig(
        hidden_size=patches.shape[0],
        intermediate_size=inner.shape[0],
        num_hidden_layers=len({match[1] for name in weights if (match := re.search(r"\.layers\.(\d+)\.", name))}),
        num_attention_heads=HEADS,
        projection_dim=projection,
        image_size=side * patch,
        patch_size=patch,
        hidden_act=ACTIVATION[projection],
    )
    return CLIPVisionModelWithProjection(config)
