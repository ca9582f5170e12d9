"""Binarization by the grey value."""

from __future__ import annotations

import cv2

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad


def binary(
    image: Array,
    *,
    resolution: int,
    params: tuple[float, ...] = (100.0,),
    mask: Pixels | None = None,
    rng_seed: int = 0,
) -> Pixels:
    """255 where the grey value (ITU-R 601) is above the threshold; 0 and 255 ask for Otsu's (1979) threshold."""
    padded, cut = resize_and_pad(image, resolution)
    limit = int(params[0])
    method = cv2.THRESH_OTSU if limit in (0, 255) else 0
    return grey_to_rgb(cut(cv2.threshold(cv2.cvtColor(padded, cv2.COLOR_RGB2GRAY), limit, 255, method)[1]))
