"""Regions of masks, and filling of masked parts."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageFilter, ImageOps

Region = tuple[int, int, int, int]


def _image(mask: Any) -> Image.Image:
    return mask if isinstance(mask, Image.Image) else Image.fromarray(mask)


def get_crop_region_v2(mask: Any, pad: int = 0) -> Region | None:
    """(x1, y1, x2, y2) around all non-black pixels, grown by `pad` inside the picture; None for a black mask."""
    mask = _image(mask)
    box = mask.getbbox()
    if box is None or not pad:
        return box
    x1, y1, x2, y2 = box
    return max(x1 - pad, 0), max(y1 - pad, 0), min(x2 + pad, mask.width), min(y2 + pad, mask.height)


def get_crop_region(mask: Any, pad: int = 0) -> Region:
    """As `get_crop_region_v2`, but an inverted box (x1 > x2) for a black mask."""
    mask = _image(mask)
    box = get_crop_region_v2(mask, pad)
    if box is not None:
        return box
    width, height = mask.size
    return max(width - pad, 0), max(height - pad, 0), min(pad, width), min(pad, height)


def _grow(low: int, high: int, wanted: float, limit: int) -> tuple[int, int]:
    """A span grown to `wanted` around its middle, shifted into 0..limit, cut where it cannot fit."""
    extra = int(wanted - (high - low))
    low -= extra // 2
    high += extra - extra // 2
    if high >= limit:
        low, high = low - (high - limit), limit
    if low < 0:
        low, high = 0, high - low
    return low, min(high, limit)


def expand_crop_region(
    crop_region: Region, processing_width: int, processing_height: int, image_width: int, image_height: int
) -> Region:
    """The region grown to the aspect ratio in which it will be processed."""
    x1, y1, x2, y2 = crop_region
    wanted = processing_width / processing_height
    if (x2 - x1) / (y2 - y1) > wanted:
        y1, y2 = _grow(y1, y2, (x2 - x1) / wanted, image_height)
    else:
        x1, x2 = _grow(x1, x2, (y2 - y1) * wanted, image_width)
    return x1, y1, x2, y2


def fill(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The masked part filled with ever less blurred surroundings."""
    result = Image.new("RGBA", image.size)
    around = Image.new("RGBa", image.size)
    around.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    for radius, repeats in ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)):
        blurred = around.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            result.alpha_composite(blurred)
    return result.convert("RGB")
