"""Picture and mask in one map."""

from __future__ import annotations

import numpy as np

from ...images import Array, Pixels, to_rgb
from ...spec import AnnotatorError


def inpaint(
    image: Array, *, resolution: int, params: tuple[float, ...] = (), mask: Pixels | None = None, rng_seed: int = 0
) -> Pixels:
    """(H, W, 4) uint8 at the picture's own size: its colours, and 255 in the fourth channel where to paint.

    Without `mask`, a fourth channel of `image` is the mask, as in the peers.
    """
    if mask is not None:
        if mask.shape != image.shape[:2] or mask.dtype != np.uint8:
            raise AnnotatorError(
                "the mask must have the size of the picture",
                found=f"a mask of {mask.shape} ({mask.dtype}) for a picture of {image.shape[:2]}",
            )
        return np.dstack([to_rgb(image), mask])
    if image.ndim == 3 and image.shape[2] == 4 and image.dtype == np.uint8:
        return np.array(image)
    raise AnnotatorError("inpainting needs a mask", remedy="draw one over the picture, or send one as `mask`")
