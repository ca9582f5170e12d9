"""What a preprocessor is shown of a picture and its mask; the same for a preview, a route and a generation."""

from __future__ import annotations

import numpy as np

from .images import Pixels


def preprocessor_input(
    image: Pixels, mask: Pixels | None, *, accepts_mask: bool, ignore_mask: bool = False
) -> tuple[Pixels, Pixels | None]:
    """image (H, W, 3), mask (H, W) uint8 -> the two that the preprocessor gets.

    A mask drawn for a preprocessor that takes none is itself the picture, white on black (the peers' scribbling on the
    canvas), unless it is blank or full, or `ignore_mask` (option `controlnet_ignore_noninpaint_mask`) is on.
    """
    if mask is None or accepts_mask:
        return image, mask
    if ignore_mask or not marks(mask):
        return image, None
    return np.repeat(mask[:, :, None], 3, axis=2), None


def marks(mask: Pixels) -> bool:
    """Whether a mask (H, W) says anything: it is neither blank nor full."""
    return not bool((mask <= 5).all() or (mask >= 250).all())


def says_where(image: Pixels, *, requires_mask: bool) -> bool:
    """Whether a mask over `image` (H, W, 3) says where in the picture its unit acts, in hosts that read masks so.

    Not for a preprocessor that needs one; and over a single colour it is a drawing.
    """
    return not requires_mask and bool((image != image[:1, :1]).any())
